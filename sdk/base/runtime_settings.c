/*
 * The table of settings that the runtime takes itself, by category of components.
 */
#include "sdk/base/runtime_settings.h"

#include <stddef.h>

static const struct {
        const char *category, *name;
        enum runtime_setting kind;
} settings[] = {
        {"state.", "actorStateStore", RUNTIME_SETTING_PLAIN},
        {"state.", "keyPrefix", RUNTIME_SETTING_PLAIN},
        {"state.", "outboxDiscardWhenMissingState", RUNTIME_SETTING_PLAIN},
        {"state.", "outboxPublishPubsub", RUNTIME_SETTING_PLAIN},
        {"state.", "outboxPublishTopic", RUNTIME_SETTING_PLAIN},
        {"state.", "outboxPubsub", RUNTIME_SETTING_PLAIN},
        {"state.", "primaryEncryptionKey", RUNTIME_SETTING_SECRET},
        {"state.", "secondaryEncryptionKey", RUNTIME_SETTING_SECRET},
        {"lock.", "keyPrefix", RUNTIME_SETTING_PLAIN},
        {"bindings.", "direction", RUNTIME_SETTING_PLAIN},
        {"bindings.", "route", RUNTIME_SETTING_PLAIN},
};

enum runtime_setting runtime_setting(struct str type, struct str name)
{
        for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
                if (str_has_prefix(type, str_of(settings[i].category)) && str_ieq(name, str_of(settings[i].name)))
                        return settings[i].kind;
        return RUNTIME_SETTING_NONE;
}
