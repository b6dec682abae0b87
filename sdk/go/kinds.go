package plugin

import "context"

// Kinds of one service each: configuration, locks, crypto, conversation, name resolution.

// Configuration is a component of kind configuration.
type Configuration interface {
	Init(ctx context.Context, metadata Metadata) error
	// Get gives the items that exist, by key; all when keys is empty.
	Get(ctx context.Context, keys []string, metadata map[string]string) (map[string]Entry, error)
	// Subscribe calls changed(nil) once the watch stands, so that no later change is missed, and changed with what changed from then
	// on; an Entry without value and version: the key is gone. It returns when ctx ends.
	Subscribe(ctx context.Context, keys []string, metadata map[string]string, changed func(map[string]Entry) error) error
}

// Entry is an item of a configuration store.
type Entry struct {
	Value, Version string
	Metadata       map[string]string
}

// Lock is a component of kind lock. The runtime sends neither call twice.
type Lock interface {
	Init(ctx context.Context, metadata Metadata) error
	// TryLock gives false when somebody holds the resource, be it the same owner.
	TryLock(ctx context.Context, resource, owner string, expirySeconds int32) (bool, error)
	Unlock(ctx context.Context, resource, owner string) (Unlocked, error)
}

// Unlocked is the outcome of Unlock.
type Unlocked int32

const (
	LockReleased Unlocked = iota
	LockMissing           // nobody holds the resource
	LockOfOthers          // somebody else does
)

// Crypto is a component of kind crypto. What it can do are further interfaces: Encrypter, KeyWrapper, Signer.
type Crypto interface {
	Init(ctx context.Context, metadata Metadata) error
	// PublicKey gives PEM or, asJSON, a JWK.
	PublicKey(ctx context.Context, name string, asJSON bool) (string, error)
}

// Encrypter encrypts data.
type Encrypter interface {
	Encrypt(ctx context.Context, r *CryptoRequest) (*CryptoResult, error)
	Decrypt(ctx context.Context, r *CryptoRequest) (*CryptoResult, error)
}

// KeyWrapper encrypts symmetric keys.
type KeyWrapper interface {
	WrapKey(ctx context.Context, r *CryptoRequest) (*CryptoResult, error)
	UnwrapKey(ctx context.Context, r *CryptoRequest) (*CryptoResult, error)
}

// Signer signs digests.
type Signer interface {
	Sign(ctx context.Context, r *SignRequest) ([]byte, error)
	Verify(ctx context.Context, r *SignRequest) (bool, error)
}

// CryptoRequest is one call on data or on a key.
type CryptoRequest struct {
	Data           []byte `pb:"1"`
	Algorithm      string `pb:"2"` // A256KW, RSA-OAEP-256, ...
	KeyName        string `pb:"3"`
	Nonce          []byte `pb:"4"`
	Tag            []byte `pb:"5"` // for decryption, of algorithms that keep it apart
	AssociatedData []byte `pb:"6"`
}

// CryptoResult is its outcome.
type CryptoResult struct {
	Data []byte `pb:"1"`
	Tag  []byte `pb:"2"`
}

// SignRequest is one call of Sign or Verify.
type SignRequest struct {
	Digest    []byte `pb:"1"`
	Algorithm string `pb:"2"`
	KeyName   string `pb:"3"`
	Signature []byte `pb:"4"` // for Verify
}

// Conversation is a component of kind conversation: one turn with a language model.
type Conversation interface {
	Init(ctx context.Context, metadata Metadata) error
	Converse(ctx context.Context, r *ConverseRequest) (*ConverseResponse, error)
}

// ConverseRequest has all messages so far.
type ConverseRequest struct {
	Messages       []ChatMessage     `pb:"1"`
	Tools          []Tool            `pb:"2"`
	ToolChoice     string            `pb:"3"` // "", none, auto, required or a tool's name
	Temperature    float64           `pb:"4"` // 0 = the provider's default
	Metadata       map[string]string `pb:"5"`
	ResponseFormat []byte            `pb:"6"` // a JSON schema; empty = free text
	ContextID      string            `pb:"8"`
}

// ChatMessage is one message of user, system, developer, assistant or tool.
type ChatMessage struct {
	Role  string `pb:"1"`
	Name  string `pb:"2"`
	Parts []Part `pb:"3"`
}

// Part of a message: one of the three.
type Part struct {
	Text       string      `pb:"1"`
	ToolCall   *ToolCall   `pb:"2"`
	ToolResult *ToolResult `pb:"3"`
}

// ToolCall is what a model wants called.
type ToolCall struct {
	ID        string `pb:"1"`
	Type      string `pb:"2"` // function
	Name      string `pb:"3"`
	Arguments string `pb:"4"` // JSON text, as the model wrote it
}

// ToolResult is what came of a call.
type ToolResult struct {
	ID      string `pb:"1"`
	Name    string `pb:"2"`
	Content string `pb:"3"`
}

// Tool may be called.
type Tool struct {
	Type        string `pb:"1"`
	Name        string `pb:"2"`
	Description string `pb:"3"`
	Parameters  []byte `pb:"4"` // a JSON schema
}

// ConverseResponse is the model's answer.
type ConverseResponse struct {
	Outputs []Output `pb:"1"`
	Model   string   `pb:"2"`
	Usage   *Usage   `pb:"3"`
}

// Output has one or more choices.
type Output struct {
	Choices []Choice `pb:"1"`
}

// Choice is one answer.
type Choice struct {
	FinishReason string     `pb:"1"` // stop, length, tool_calls, ...
	Index        int64      `pb:"2"`
	Content      string     `pb:"3"`
	ToolCalls    []ToolCall `pb:"4"`
}

// Usage in tokens.
type Usage struct {
	Completion uint64 `pb:"1"`
	Prompt     uint64 `pb:"2"`
	Total      uint64 `pb:"3"`
}

// Said is the answer of a model that only says something.
func Said(text string) *ConverseResponse {
	return &ConverseResponse{Outputs: []Output{{Choices: []Choice{{FinishReason: "stop", Content: text}}}}}
}

// NameResolver is a component of kind nameresolution. Init makes the own sidecar (SidecarOf) known, Close takes that back.
type NameResolver interface {
	Init(ctx context.Context, metadata Metadata) error
	// Resolve gives "host:port"s, IPv6 hosts in brackets, and for how long they may be used without asking. An app that nobody knows
	// is an error; no addresses without one mean: ask again in a moment.
	Resolve(ctx context.Context, r *ResolveRequest) (addresses []string, ttlMs uint32, err error)
}

// ResolveRequest asks for the sidecars of an app.
type ResolveRequest struct {
	ID        string   `pb:"1"`
	Namespace string   `pb:"2"`
	Port      uint32   `pb:"3"` // for resolvers that know hosts only
	Failed    []string `pb:"4"` // addresses that could not be reached a moment ago
}

// Sidecar is the one that others are to find.
type Sidecar struct {
	AppID        string `pb:"1"`
	Namespace    string `pb:"2"`
	Address      string `pb:"3"`
	InternalPort uint32 `pb:"4"`
	HTTPPort     uint32 `pb:"5"`
	AppPort      uint32 `pb:"6"` // 0 = it has no app
	MetricsPort  uint32 `pb:"7"`
}

type sidecarKey struct{}

// SidecarOf gives the own sidecar during Init of a NameResolver; nil elsewhere.
func SidecarOf(ctx context.Context) *Sidecar {
	s, _ := ctx.Value(sidecarKey{}).(*Sidecar)
	return s
}

// ---- calls ----

type entry struct {
	Key      string            `pb:"1"`
	Value    string            `pb:"2"`
	Version  string            `pb:"3"`
	Metadata map[string]string `pb:"4"`
}
type entryList struct {
	Items []entry `pb:"1"`
}
type configurationRequest struct {
	Keys     []string          `pb:"1"`
	Metadata map[string]string `pb:"2"`
}
type lockRequest struct {
	Resource string `pb:"1"`
	Owner    string `pb:"2"`
	Expiry   int32  `pb:"3"`
}
type lockResponse struct {
	Success bool `pb:"1"`
}
type unlockResponse struct {
	Status int32 `pb:"1"`
}
type getKeyRequest struct {
	Name   string `pb:"1"`
	Format int32  `pb:"2"` // 1 = JSON
}
type getKeyResponse struct {
	Name string `pb:"1"`
	Key  string `pb:"2"`
}
type signResponse struct {
	Signature []byte `pb:"1"`
}
type verifyResponse struct {
	Valid bool `pb:"1"`
}
type resolveResponse struct {
	Addresses []string `pb:"1"`
	TTLMs     uint32   `pb:"2"`
}

const ours = "microdapr.plugin.v1."

func entriesOf(items map[string]Entry) *entryList {
	out := &entryList{}
	for k, e := range items {
		out.Items = append(out.Items, entry{k, e.Value, e.Version, e.Metadata})
	}
	return out
}

func addConfiguration(rt *runtime) {
	const kind = "configuration"
	rt.add(ours+"ConfigurationStore", append(rt.common(kind, true),
		on(rt, kind, "Get", true, func(ctx context.Context, o Configuration, in *configurationRequest) (*entryList, error) {
			items, err := o.Get(ctx, in.Keys, in.Metadata)
			return entriesOf(items), err
		}),
		Streaming("Subscribe", rt.watch)))
}

func (rt *runtime) watch(ctx context.Context, s *Stream) error {
	i, err := rt.take(ctx, "configuration")
	if err != nil {
		return err
	}
	rt.give(i) // a watch is no work that a drain waits for
	var in configurationRequest
	if err := s.Recv(&in); err != nil {
		return err
	}
	err = i.object.(Configuration).Subscribe(ctx, in.Keys, in.Metadata, func(items map[string]Entry) error { return s.Send(entriesOf(items)) })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func addLock(rt *runtime) {
	const kind = "lock"
	rt.add(ours+"Lock", append(rt.common(kind, true),
		on(rt, kind, "TryLock", false, func(ctx context.Context, o Lock, in *lockRequest) (*lockResponse, error) {
			ok, err := o.TryLock(ctx, in.Resource, in.Owner, in.Expiry)
			return &lockResponse{ok}, err
		}),
		on(rt, kind, "Unlock", false, func(ctx context.Context, o Lock, in *lockRequest) (*unlockResponse, error) {
			status, err := o.Unlock(ctx, in.Resource, in.Owner)
			return &unlockResponse{int32(status)}, err
		})))
}

func addCrypto(rt *runtime) {
	const kind = "crypto"
	rt.add(ours+"Crypto", append(rt.common(kind, true),
		on(rt, kind, "GetKey", true, func(ctx context.Context, o Crypto, in *getKeyRequest) (*getKeyResponse, error) {
			text, err := o.PublicKey(ctx, in.Name, in.Format == 1)
			return &getKeyResponse{in.Name, text}, err
		}),
		on(rt, kind, "Encrypt", true, func(ctx context.Context, o Encrypter, in *CryptoRequest) (*CryptoResult, error) {
			return o.Encrypt(ctx, in)
		}),
		on(rt, kind, "Decrypt", true, func(ctx context.Context, o Encrypter, in *CryptoRequest) (*CryptoResult, error) {
			return o.Decrypt(ctx, in)
		}),
		on(rt, kind, "WrapKey", true, func(ctx context.Context, o KeyWrapper, in *CryptoRequest) (*CryptoResult, error) {
			return o.WrapKey(ctx, in)
		}),
		on(rt, kind, "UnwrapKey", true, func(ctx context.Context, o KeyWrapper, in *CryptoRequest) (*CryptoResult, error) {
			return o.UnwrapKey(ctx, in)
		}),
		on(rt, kind, "Sign", true, func(ctx context.Context, o Signer, in *SignRequest) (*signResponse, error) {
			signature, err := o.Sign(ctx, in)
			return &signResponse{signature}, err
		}),
		on(rt, kind, "Verify", true, func(ctx context.Context, o Signer, in *SignRequest) (*verifyResponse, error) {
			valid, err := o.Verify(ctx, in)
			return &verifyResponse{valid}, err
		})))
}

func addConversation(rt *runtime) {
	const kind = "conversation"
	rt.add(ours+"Conversation", append(rt.common(kind, true),
		on(rt, kind, "Converse", false, func(ctx context.Context, o Conversation, in *ConverseRequest) (*ConverseResponse, error) {
			return o.Converse(ctx, in)
		})))
}

func addNames(rt *runtime) {
	const kind = "nameresolution"
	rt.add(ours+"NameResolution", append(rt.common(kind, true),
		on(rt, kind, "Resolve", true, func(ctx context.Context, o NameResolver, in *ResolveRequest) (*resolveResponse, error) {
			addresses, ttl, err := o.Resolve(ctx, in)
			return &resolveResponse{addresses, ttl}, err
		})))
}
