/* Pages about plugin.yaml from the table that its parser reads by: docs/reference/manifest.md and plugin.yaml(5). */
#include "docs/gen/manifest.h"

#include <stdio.h>
#include <string.h>

#include "kernel/super/manifest.h"
#include "kernel/super/manifest_keys.h"

static const struct { const char *map, *title, *about; } parts[] = {
        {"", "The file", "One file a plugin, beside its program. An unknown key is an error, so that a misspelt one is not silently without effect."},
        {"types", "types", "An entry a component type."},
        {"metadata", "metadata", "An entry a setting."},
        {"sandbox", "sandbox", "What the process needs of the machine. The rights that take a setting's value need a process of their own (no share)."},
        {"files", "sandbox: files", "An entry a file or folder."},
        {"network", "sandbox: network", "An entry a peer or port."},
        {"programs", "sandbox: programs", "An entry a program."},
        {"limits", "sandbox: limits", "Limits of the process."},
};
enum { PARTS = sizeof parts / sizeof *parts };

static const char example[] =
        "name: state.mystore\nversion: 0.1.0\ncontract: [1]\ntypes:\n  - type: state.mystore\n    versions: [v1]\nmetadata:\n"
        "  - name: path\n    required: true\n    description: The file with the values.\n"
        "  - name: busyTimeout\n    type: duration\n    default: 2s\n"
        "sandbox:\n  files:\n    - path: ${path}\n      access: write\n      beside: true\n      reason: The values.\n";

/* What a value of the kind is, by the check's own words. */
static const char *kind_means(enum manifest_kind k)
{
        const struct manifest_field f = {.kind = k};
        const char *z = manifest_value_fault(&f, STR("?"));
        return k == FIELD_ENUM ? "one of the entry's values, in any case" : z ? z : "any text";
}

static void cell(const char *s)
{
        for (; *s; s++) {
                if (strchr("|<*_", *s))
                        putchar('\\');
                putchar(*s);
        }
}

int manifest_page(void)
{
        printf("# plugin.yaml\n\nWhat a plugin says about itself before it runs; `man plugin.yaml` has the same. What the rights of `sandbox` come to:\n"
               "[What a plugin may do](../sandbox.md).\n\n```yaml\n%s```\n", example);
        for (size_t i = 0; i < PARTS; i++) {
                printf("\n## %s\n\n%s\n\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n", parts[i].title, parts[i].about);
                for (size_t k = 0; k < n_manifest_keys; k++) {
                        const struct manifest_key *row = &manifest_keys[k];
                        if (strcmp(row->map, parts[i].map) != 0)
                                continue;
                        printf("| `%s` | %s | ", row->name, row->type);
                        cell(row->def);
                        printf(" | ");
                        cell(row->meaning);
                        printf(" |\n");
                }
                if (strcmp(parts[i].map, "metadata") == 0) {
                        printf("\n| Type | A value is |\n|---|---|\n");
                        for (enum manifest_kind k = 0; k < FIELD_KINDS; k++)
                                printf("| `%s` | %s |\n", manifest_kind_name(k), kind_means(k));
                }
        }
        return 0;
}

/* A line of running text, or of an example, for roff. */
static void roff(const char *s)
{
        for (const char *at = s; *at; at++) {
                if ((at == s || at[-1] == '\n') && (*at == '.' || *at == '\''))
                        printf("\\&");
                if (*at == '\\' || *at == '-')
                        putchar('\\');
                putchar(*at);
        }
}

int manifest_man(void)
{
        printf(".TH \"plugin.yaml\" 5\n.SH NAME\nplugin.yaml \\- what a plugin of microdapr says about itself\n.SH DESCRIPTION\n");
        for (size_t i = 0; i < PARTS; i++) {
                if (*parts[i].map)
                        printf(".SH \"%s\"\n", parts[i].title);
                roff(parts[i].about);
                printf("\n");
                for (size_t k = 0; k < n_manifest_keys; k++) {
                        const struct manifest_key *row = &manifest_keys[k];
                        if (strcmp(row->map, parts[i].map) != 0)
                                continue;
                        printf(".TP\n\\fB%s\\fR (%s%s%s)\n", row->name, row->type, !*row->def ? "" : strcmp(row->def, "required") == 0 ? ", " : ", default: ", row->def);
                        roff(row->meaning);
                        printf("\n");
                }
                if (strcmp(parts[i].map, "metadata") == 0) {
                        printf(".SS Types of settings\n");
                        for (enum manifest_kind k = 0; k < FIELD_KINDS; k++)
                                printf(".TP\n\\fB%s\\fR\n%s\n", manifest_kind_name(k), kind_means(k));
                }
        }
        printf(".SH EXAMPLE\n.nf\n");
        roff(example);
        printf(".fi\n.SH SEE ALSO\n\\fBdapr-plugin\\fR(1), \\fBdapr-plugin-new\\fR(1), \\fBdapr-plugin-security\\fR(1)\n");
        return 0;
}
