/* conversation.openai: OpenAI, Azure OpenAI, and every server that speaks OpenAI's chat completions. */
#include "plugins/shared/openai/openai.h"

static int op_init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        static const struct openai_defaults defaults = {.endpoint = "https://api.openai.com/v1",
                                                        .model = "gpt-5-nano",
                                                        .model_env = "OPENAI_MODEL",
                                                        .azure_model = "gpt-4.1-nano",
                                                        .azure_model_env = "AZURE_OPENAI_MODEL"};
        return openai_init(c, md, &defaults, instance);
}

static const struct dapr_conversation_ops ops = {.mode = DAPR_FIBER, .init = op_init, .close = openai_close, .converse = openai_converse};
static const struct dapr_component_type types[] = {{.type = "conversation.openai", .versions = "v1", .conversation = &ops}};

int main(int argc, char **argv)
{
        static const struct dapr_plugin plugin = {.name = "conversation.openai", .version = "1.0.0", .types = types, .n_types = 1};
        return dapr_plugin_main(argc, argv, &plugin);
}
