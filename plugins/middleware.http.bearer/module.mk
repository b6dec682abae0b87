PLUGINS += middleware.http.bearer
middleware.http.bearer_SRC = plugins/middleware.http.bearer/bearer.c plugins/shared/web/web.c \
        $(addprefix plugins/shared/crypto/,jwt.c keyset.c) $(SHARED_CRYPTO)
middleware.http.bearer_LD := -lcrypto
