/*
 * Language models: one turn of a conversation, with tools and a schema for the answer. Included from <dapr/plugin.h>.
 * Personal data is scrubbed by the runtime before and after; a plugin only translates to its provider.
 */
#ifndef DAPR_CONVERSATION_H
#define DAPR_CONVERSATION_H

#include <dapr/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

struct dapr_tool_call { /* the model wants a tool called */
        const char *id;             /* "" = none */
        const char *type;           /* "function" */
        const char *name;
        const char *arguments;      /* as the model wrote them: JSON text, unchecked */
};
struct dapr_part {
        enum dapr_part_kind { DAPR_PART_TEXT, DAPR_PART_TOOL_CALL, DAPR_PART_TOOL_RESULT } kind;
        const char *text;           /* of a text; of a tool's result: what it gave */
        struct dapr_tool_call call; /* of a call; of a result: id and name */
};
struct dapr_chat_message {
        const char *role;           /* "user" "system" "developer" "assistant" "tool" "function" "generic" */
        const char *name;           /* "" = none */
        const struct dapr_part *parts;
        size_t n;
};
struct dapr_tool {
        const char *type;           /* "function" */
        const char *name, *description;
        const char *parameters;     /* JSON schema; NULL = none given */
};
struct dapr_converse {
        const struct dapr_chat_message *messages;
        size_t n_messages;
        const struct dapr_tool *tools;
        size_t n_tools;
        const char *tool_choice;    /* "" = not given; "none", "auto", "required" or the name of a tool */
        double temperature;         /* 0 = the provider's default */
        struct dapr_kvs metadata;
        const char *response_format; /* JSON schema; NULL = free text */
        int64_t prompt_cache_retention_ns; /* -1 = not given */
        const char *context_id;     /* "" = none */
};

struct dapr_choice {
        const char *finish_reason;  /* "stop", "length", "tool_calls" … */
        int64_t index;
        const char *content;        /* NULL = none */
        const struct dapr_tool_call *tool_calls;
        size_t n_tool_calls;
};
struct dapr_output {
        const struct dapr_choice *choices;
        size_t n;
};
struct dapr_usage { /* in tokens */
        uint64_t completion, prompt, total;
        uint64_t completion_accepted_prediction, completion_audio, completion_reasoning, completion_rejected_prediction;
        uint64_t prompt_audio, prompt_cached;
};
struct dapr_converse_result { /* zeroed before the call */
        const struct dapr_output *outputs;
        size_t n;
        const char *model;          /* NULL = not known */
        const struct dapr_usage *usage; /* NULL = not known */
};

struct dapr_conversation_ops {
        enum dapr_mode mode;
        unsigned features;          /* none are defined: leave 0 */
        int (*init)(struct dapr_call *c, const struct dapr_metadata *md, void **instance);
        void (*close)(void *instance);
        int (*ping)(struct dapr_call *c, void *instance);
        int (*converse)(struct dapr_call *c, void *instance, const struct dapr_converse *in, struct dapr_converse_result *out);
};

#ifdef __cplusplus
}
#endif
#endif
