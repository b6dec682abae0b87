module microdapr.io/plugins/middleware.http.wasm

go 1.24

require (
	github.com/http-wasm/http-wasm-host-go v0.7.0
	github.com/tetratelabs/wazero v1.8.0
	microdapr.io/plugin v0.0.0
)

replace microdapr.io/plugin => ../../sdk/go
