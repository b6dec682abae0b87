/* conversation.cstore: a model that repeats the last words. Put yours in its place. */
#include <dapr/plugin.h>
#include <errno.h>

static int init(struct dapr_call *c, const struct dapr_metadata *md, void **instance)
{
        static char nothing;
        (void)c, (void)md; /* read settings: dapr_md_string(md, "url") */
        *instance = &nothing;
        return 0;
}

static int converse(struct dapr_call *c, void *instance, const struct dapr_converse *in, struct dapr_converse_result *out)
{
        (void)instance;
        struct dapr_choice *choice = dapr_alloc(c, sizeof(*choice));
        struct dapr_output *output = dapr_alloc(c, sizeof(*output));
        const char *last = "nothing";
        for (size_t i = 0; i < in->n_messages; i++)
                for (size_t k = 0; k < in->messages[i].n; k++)
                        if (in->messages[i].parts[k].kind == DAPR_PART_TEXT)
                                last = in->messages[i].parts[k].text;
        if (!choice || !output)
                return -ENOMEM;
        *choice = (struct dapr_choice){.finish_reason = "stop", .content = dapr_printf(c, "You said: %s", last)};
        *output = (struct dapr_output){choice, 1};
        out->outputs = output;
        out->n = 1;
        return choice->content ? 0 : -ENOMEM;
}

static const struct dapr_conversation_ops ops = {.mode = DAPR_INLINE, .init = init, .converse = converse};
static const struct dapr_component_type types[] = {{.type = "conversation.cstore", .versions = "v1", .conversation = &ops}};
/* PLUGIN_VERSION: that of plugin.yaml, from the Makefile. */
static const struct dapr_plugin plugin = {.name = "conversation.cstore", .version = PLUGIN_VERSION, .types = types, .n_types = 1};

int main(int argc, char **argv)
{
        return dapr_plugin_main(argc, argv, &plugin);
}
