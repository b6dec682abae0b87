module invokeapp

go 1.24.0

require github.com/dapr/go-sdk v1.11.0
