/* See pki.h. wolfSSL's options.h comes first: sizes of its structs depend on it. */
#include <wolfssl/options.h>

#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/ecc.h>
#include <wolfssl/wolfcrypt/random.h>

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "sdk/net/pki.h"

enum { DER_MAX = 2048, P256_BYTES = 32 };

static int make_request(ecc_key *key, WC_RNG *rng, struct pki_key *ret, unsigned char *der)
{
        Cert *cert = malloc(sizeof *cert); /* 25 KB */
        int n, r = -EIO;

        if (!cert)
                return -ENOMEM;
        if (wc_InitCert(cert) == 0) {
                cert->version = 0; /* of a request: RFC 2986, 4.1 */
                cert->sigType = CTC_SHA256wECDSA;
                n = wc_MakeCertReq_ex(cert, der, DER_MAX, ECC_TYPE, key);
                if (n > 0)
                        n = wc_SignCert_ex(cert->bodySz, cert->sigType, der, DER_MAX, ECC_TYPE, key, rng);
                if (n > 0)
                        n = wc_DerToPem(der, (word32)n, (unsigned char *)ret->csr_pem, PKI_CSR_PEM_MAX - 1, CERTREQ_TYPE);
                if (n > 0) {
                        ret->csr_pem[n] = '\0';
                        r = 0;
                }
        }
        free(cert);
        return r;
}

/* Both are some KiB: not for a fiber's stack. */
struct work {
        WC_RNG rng;
        ecc_key key;
        unsigned char der[DER_MAX];
};

static int make_key(struct work *w, struct pki_key *ret)
{
        int n, r = -EIO;

        if (wc_InitRng(&w->rng) != 0)
                return r;
        if (wc_ecc_init(&w->key) == 0) {
                if (wc_ecc_make_key_ex(&w->rng, P256_BYTES, &w->key, ECC_SECP256R1) == 0 &&
                    (n = wc_EccKeyToDer(&w->key, w->der, DER_MAX)) > 0 &&
                    (n = wc_DerToPem(w->der, (word32)n, (unsigned char *)ret->key_pem, PKI_KEY_PEM_MAX - 1, ECC_PRIVATEKEY_TYPE)) > 0) {
                        ret->key_pem[n] = '\0';
                        r = make_request(&w->key, &w->rng, ret, w->der);
                }
                wc_ecc_free(&w->key);
        }
        wc_FreeRng(&w->rng);
        return r;
}

int pki_key_new(struct pki_key *ret)
{
        struct work *w = calloc(1, sizeof *w);
        int r = w ? make_key(w, ret) : -ENOMEM;

        if (w)
                explicit_bzero(w, sizeof *w);
        free(w);
        wc_ecc_fp_free(); /* the curve's tables are each thread's own, and would stay when it ends: 0.8 MB */
        return r;
}

bool pki_has_uri(struct str cert_der, struct str uri)
{
        DecodedCert *d = malloc(sizeof *d);
        bool found = false;

        if (!d)
                return false;
        wc_InitDecodedCert(d, (const unsigned char *)cert_der.p, (word32)cert_der.n, NULL);
        if (wc_ParseCert(d, CERT_TYPE, NO_VERIFY, NULL) == 0)
                for (DNS_entry *e = d->altNames; e && !found; e = e->next) {
                        struct str name = str_n(e->name, (size_t)e->len);
                        found = e->type == ASN_URI_TYPE && str_eq(name, uri);
                }
        wc_FreeDecodedCert(d);
        free(d);
        return found;
}

int pki_uri(struct str cert_der, char *to, size_t n)
{
        DecodedCert *d = malloc(sizeof *d);
        int r = -ENOENT;

        if (!d)
                return -ENOMEM;
        wc_InitDecodedCert(d, (const unsigned char *)cert_der.p, (word32)cert_der.n, NULL);
        if (wc_ParseCert(d, CERT_TYPE, NO_VERIFY, NULL))
                r = -EINVAL;
        for (DNS_entry *e = r == -EINVAL ? NULL : d->altNames; e && r == -ENOENT; e = e->next) {
                if (e->type != ASN_URI_TYPE)
                        continue;
                r = (size_t)e->len < n ? 0 : -EMSGSIZE;
                if (r == 0) {
                        memcpy(to, e->name, (size_t)e->len);
                        to[e->len] = '\0';
                }
        }
        wc_FreeDecodedCert(d);
        free(d);
        return r;
}

static int64_t read_time(const unsigned char *date, int length)
{
        struct tm tm;
        if (!date || length <= 2 || wc_GetDateAsCalendarTime(date + 2, date[1], date[0], &tm) != 0)
                return -1;
        return timegm(&tm);
}

int pki_validity(struct str pem, int64_t *not_before, int64_t *not_after)
{
        DerBuffer *der = NULL;
        DecodedCert *d = malloc(sizeof *d);
        int r = -EINVAL;

        if (d && wc_PemToDer((const unsigned char *)pem.p, (long)pem.n, CERT_TYPE, &der, NULL, NULL, NULL) == 0) {
                wc_InitDecodedCert(d, der->buffer, der->length, NULL);
                if (wc_ParseCert(d, CERT_TYPE, NO_VERIFY, NULL) == 0) {
                        *not_before = read_time(d->beforeDate, d->beforeDateLen);
                        *not_after = read_time(d->afterDate, d->afterDateLen);
                        r = *not_before >= 0 && *not_after > *not_before ? 0 : -EINVAL;
                }
                wc_FreeDecodedCert(d);
        }
        wc_FreeDer(&der);
        free(d);
        return r;
}
