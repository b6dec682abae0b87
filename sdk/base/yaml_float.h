/* Numbers as text in the forms in which the reference's components see them; private to the YAML readers. */
#ifndef SDK_BASE_YAML_FLOAT_H
#define SDK_BASE_YAML_FLOAT_H

enum { YAML_FLOAT_TEXT = 40 };
enum yaml_float_form {
        YAML_FLOAT_JSON,   /* encoding/json of a float64 */
        YAML_FLOAT_SINGLE, /* strconv 'g' with 32 bits: a number where a string is wanted */
};
void yaml_format_float(char out[YAML_FLOAT_TEXT], double d, enum yaml_float_form form);

#endif
