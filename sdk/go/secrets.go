package plugin

import "context"

// SecretStore is a component of kind secretstores. A secret is a set of values by name.
type SecretStore interface {
	Init(ctx context.Context, metadata Metadata) error
	Get(ctx context.Context, name string, metadata map[string]string) (map[string]string, error)
	BulkGet(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error)
}

type secretRequest struct {
	Key      string            `pb:"1"`
	Metadata map[string]string `pb:"2"`
}
type secretValues struct {
	Data map[string]string `pb:"1"`
}
type bulkSecretRequest struct {
	Metadata map[string]string `pb:"1"`
}
type bulkSecretResponse struct {
	Data map[string]*secretValues `pb:"1"`
}

func addSecrets(rt *runtime) {
	const kind = "secretstores"
	rt.add("dapr.proto.components.v1.SecretStore", append(rt.common(kind, true),
		on(rt, kind, "Get", true, func(ctx context.Context, o SecretStore, in *secretRequest) (*secretValues, error) {
			v, err := o.Get(ctx, in.Key, in.Metadata)
			return &secretValues{v}, err
		}),
		on(rt, kind, "BulkGet", true, func(ctx context.Context, o SecretStore, in *bulkSecretRequest) (*bulkSecretResponse, error) {
			all, err := o.BulkGet(ctx, in.Metadata)
			out := &bulkSecretResponse{Data: map[string]*secretValues{}}
			for name, v := range all {
				out.Data[name] = &secretValues{v}
			}
			return out, err
		})))
}
