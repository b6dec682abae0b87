PLUGINS += crypto.dapr.jwks
crypto.dapr.jwks_SRC = plugins/crypto.dapr.jwks/jwks.c plugins/shared/crypto/keyset.c plugins/shared/web/web.c $(SHARED_CRYPTO)
crypto.dapr.jwks_LD := -lcrypto
