GO_PLUGINS += middleware.http.opa
