// Signatures by HMAC with one key: put your provider in its place.
package main

import (
	"context"
	"crypto"
	"crypto/hmac"
	_ "crypto/sha256"
	_ "crypto/sha512"

	"microdapr.io/plugin"
)

var hashes = map[string]crypto.Hash{"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512} // as the API names them

type provider struct{ keys map[string][]byte }

func (p *provider) Init(ctx context.Context, md plugin.Metadata) error { return nil }

func (p *provider) PublicKey(ctx context.Context, name string, asJSON bool) (string, error) {
	return "", plugin.Errorf(plugin.NotFound, "key not found") // a symmetric key has no public part
}

func (p *provider) Sign(ctx context.Context, r *plugin.SignRequest) ([]byte, error) {
	key, there := p.keys[r.KeyName]
	if !there {
		return nil, plugin.Errorf(plugin.NotFound, "key not found")
	}
	hash, known := hashes[r.Algorithm]
	if !known {
		return nil, plugin.Errorf(plugin.InvalidArgument, "unsupported algorithm")
	}
	mac := hmac.New(hash.New, key)
	mac.Write(r.Digest)
	return mac.Sum(nil), nil
}

func (p *provider) Verify(ctx context.Context, r *plugin.SignRequest) (bool, error) {
	right, err := p.Sign(ctx, r)
	return hmac.Equal(right, r.Signature), err
}

var version = "0.0.0" // that of plugin.yaml, from the Makefile

func main() {
	plugin.Main(plugin.Plugin{Name: "crypto.gostore", Version: version, Types: []plugin.Type{
		{Type: "crypto.gostore", New: func() any {
			return &provider{map[string][]byte{"hello": []byte("a secret that never leaves this process")}}
		}}}})
}
