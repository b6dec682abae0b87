GO_PLUGINS += middleware.http.sentinel
