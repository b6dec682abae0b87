/* The crypto building block, inside: crypto.c has the doors, crypto_stream.c documents, crypto_subtle.c single operations. */
#ifndef KERNEL_CRYPTO_H
#define KERNEL_CRYPTO_H

#include "kernel/blocks/crypto_enc.h"
#include "kernel/front/call.h"

/* Where a document comes from. >0 bytes, 0 at the end, <0 with *error set (in the call's arena). Parks. */
struct crypto_source {
        ssize_t (*read)(struct crypto_source *s, void *to, size_t n);
        const char *error;
};
/* Where it goes. The CRYPTO_FRONT_BYTES in front of data may be overwritten, for framing. 0 or
 * -errno: nobody reads any more. Parks. */
struct crypto_sink {
        int (*write)(struct crypto_sink *s, struct str data);
};
enum { CRYPTO_FRONT_BYTES = 32 }; /* room in front of what a sink gets, for its framing */

struct crypto_encrypt {
        struct component *comp;
        const char *key_name, *algorithm, *cipher, *decryption_key_name; /* empty = not given */
        bool omit_key_name;
};
struct crypto_decrypt {
        struct component *comp;
        const char *key_name;
};
/* A whole document. 0 = done. > 0: it failed before anything was written, *error is why (the start: wrapping, the header). -EIO: it
 * failed on the way, *error is why. Other < 0: the sink's. Memory is bounded whatever the document's size. Park. */
enum { CRYPTO_START_FAILED = 1 };
int crypto_encrypt(struct call *c, const struct crypto_encrypt *o, struct crypto_source *from, struct crypto_sink *to, const char **error);
int crypto_decrypt(struct call *c, const struct crypto_decrypt *o, struct crypto_source *from, struct crypto_sink *to, const char **error);

/* The provider of that name; NULL: call_fail() was called. */
struct component *crypto_find(struct call *c, const char *name);
/* One call to the provider under its policies, counted as `operation`. 0 and *answer, or the gRPC code with the text in *ret_err. */
int crypto_call(struct call *c, struct component *comp, const char *operation, const char *method, const ProtobufCMessage *req,
                const ProtobufCMessageDescriptor *answer_d, void *answer, const char **ret_err);

#define CRYPTO_SERVICE "/microdapr.plugin.v1.Crypto/"

/* crypto_subtle.c: rows of both doors. */
extern const struct http_route crypto_subtle_http[];
extern const struct grpc_route crypto_subtle_grpc[];
enum { CRYPTO_SUBTLE_ROWS = 7 };

#endif
