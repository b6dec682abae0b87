/* Trace headers: what is read as a context reads back as the same one, from both forms; baggage and tracestate only must not fall over. */
#include <stdlib.h>

#include "kernel/observe/span_context.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
        struct str in = str_n(data, n), part;
        struct span_context c, d;
        char text[TRACEPARENT_CHARS + 1];
        uint8_t binary[TRACE_BINARY_BYTES];

        if (span_context_from_w3c(in, &c)) {
                span_context_to_w3c(&c, text);
                span_context_to_binary(&c, binary);
                if (!span_context_is_valid(&c) || !span_context_from_w3c(str_n(text, TRACEPARENT_CHARS), &d) || memcmp(&c, &d, sizeof c) != 0 ||
                    !span_context_from_binary(str_n(binary, sizeof binary), &d) || memcmp(&c, &d, sizeof c) != 0)
                        abort();
        }
        if (span_context_from_binary(in, &c)) {
                span_context_to_binary(&c, binary);
                if (!span_context_from_binary(str_n(binary, sizeof binary), &d) || memcmp(&c, &d, sizeof c) != 0)
                        abort();
        }
        tracestate_is_valid(in);
        baggage_fault(in, &part);
        return 0;
}
