SHARED_CRYPTO := $(addprefix plugins/shared/crypto/,keys.c keys_jwk.c algorithms.c signatures.c local.c)
PLUGINS += crypto.dapr.localstorage
crypto.dapr.localstorage_SRC := plugins/crypto.dapr.localstorage/localstorage.c $(SHARED_CRYPTO)
crypto.dapr.localstorage_LD := -lcrypto
