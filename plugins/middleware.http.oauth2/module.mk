PLUGINS += middleware.http.oauth2
middleware.http.oauth2_SRC := plugins/middleware.http.oauth2/oauth2.c plugins/shared/oauth2/token.c plugins/shared/web/web.c
