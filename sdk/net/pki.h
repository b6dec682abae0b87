/*
 * Keys and certificates beyond TLS itself: a workload's key and its certificate request, and what a certificate says.
 * By wolfCrypt. Slow (about a millisecond) and hungry for stack: run pki_key_new on the worker pool.
 */
#ifndef SDK_NET_PKI_H
#define SDK_NET_PKI_H

#include <stdint.h>

#include "sdk/base/str.h"

enum { PKI_KEY_PEM_MAX = 1024, PKI_CSR_PEM_MAX = 2048 };

struct pki_key {
        char key_pem[PKI_KEY_PEM_MAX]; /* EC P-256, SEC 1; wipe after use */
        char csr_pem[PKI_CSR_PEM_MAX]; /* certificate request with an empty subject, signed by the key */
};
/* 0 or -EIO. Blocks. */
int pki_key_new(struct pki_key *ret);
/* Does the certificate (DER) carry this URI as a subject alternative name? */
bool pki_has_uri(struct str cert_der, struct str uri);
/* The first URI among its subject alternative names, NUL-terminated. 0, -ENOENT (none), -EMSGSIZE, -EINVAL (no certificate). */
int pki_uri(struct str cert_der, char *to, size_t n);
/* Validity of the first certificate of a PEM chain, Unix seconds. 0 or -EINVAL. */
int pki_validity(struct str pem, int64_t *not_before, int64_t *not_after);

#endif
