/*
 * Settings in a component's spec.metadata that the runtime takes itself, whatever the plugin is: no manifest names them.
 * Source: the component pages of docs.dapr.io.
 */
#ifndef SDK_BASE_RUNTIME_SETTINGS_H
#define SDK_BASE_RUNTIME_SETTINGS_H

#include "sdk/base/str.h"

enum runtime_setting { RUNTIME_SETTING_NONE, RUNTIME_SETTING_PLAIN, RUNTIME_SETTING_SECRET };

/* type: that of the component, "state.redis". Names count in any case. */
enum runtime_setting runtime_setting(struct str type, struct str name);

#endif
