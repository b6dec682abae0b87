/* conversation.ollama: models of an Ollama server, by its OpenAI-compatible API. */
#include "plugins/shared/openai/openai.h"

static int op_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        static const struct openai_defaults defaults = {
                .key = "ollama", .endpoint = "http://localhost:11434/v1", .model = "llama3.2:latest", .model_env = "OLLAMA_MODEL"};
        return openai_init(c, md, &defaults, instance);
}

static const struct dapr_conversation_ops ops = {.mode = DAPR_FIBER, .init = op_init, .close = openai_close, .converse = openai_converse};
static const struct dapr_component_type types[] = {{.type = "conversation.ollama", .versions = "v1", .conversation = &ops}};

int main(int argc, char **argv)
{
        static const struct dapr_plugin plugin = {.name = "conversation.ollama", .version = "1.0.0", .types = types, .n_types = 1};
        return dapr_plugin_main(argc, argv, &plugin);
}
