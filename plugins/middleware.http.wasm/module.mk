GO_PLUGINS += middleware.http.wasm
