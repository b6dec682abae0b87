PLUGINS += middleware.http.oauth2clientcredentials
middleware.http.oauth2clientcredentials_SRC := plugins/middleware.http.oauth2clientcredentials/oauth2clientcredentials.c plugins/shared/oauth2/token.c plugins/shared/web/web.c
