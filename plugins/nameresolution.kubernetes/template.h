/* Address templates: text with {{.ID}}, {{.Namespace}}, {{.Port}} and {{.Data.name}}, written as for Go's text/template. */
#ifndef PLUGINS_KUBERNETES_TEMPLATE_H
#define PLUGINS_KUBERNETES_TEMPLATE_H

#include "sdk/base/buf.h"

struct address_values {
        struct str id, namespace_;
        int port;
};
/* Appends the text with the values in place; trim markers and comments count as in Go. 0; -EINVAL with the action that is not one of
 * those above in *ret_bad (borrowed from text); -ENOMEM. */
int address_template(struct buf *out, struct str text, const struct address_values *v, struct str *ret_bad);

#endif
