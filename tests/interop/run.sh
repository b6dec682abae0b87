#!/bin/sh
# gRPC's interoperability cases, ours against ours and, when INTEROP_CLIENT and INTEROP_SERVER name gRPC's own programs
# (go install google.golang.org/grpc/interop/client@latest, .../server@latest), against those in both directions.
# Usage: run.sh [folder of interop_client and interop_server]; default build/release/bin.
bin=${1:-build/release/bin}
both="empty_unary large_unary client_streaming server_streaming ping_pong empty_stream timeout_on_sleeping_server
cancel_after_begin cancel_after_first_response status_code_and_message special_status_message unimplemented_method
unimplemented_service custom_metadata"
compressed="client_compressed_unary server_compressed_unary"
port=${INTEROP_PORT:-21370}
failed=0

# run_cases NAME SERVER CLIENT CASES
run_cases() {
        port=$((port + 1))
        $2 -port=$port >/dev/null 2>&1 &
        server=$!
        i=0
        until $3 -server_host=127.0.0.1 -server_port=$port -test_case=empty_unary >/dev/null 2>&1; do
                i=$((i + 1))
                [ $i -gt 50 ] && break
                sleep 0.1
        done
        for t in $4; do
                if out=$($3 -server_host=127.0.0.1 -server_port=$port -test_case=$t 2>&1); then
                        echo "ok   $1 $t"
                else
                        echo "FAIL $1 $t: $out"
                        failed=1
                fi
        done
        kill $server
        wait $server 2>/dev/null
}

run_cases "ours-ours" "$bin/interop_server" "$bin/interop_client" "$both $compressed"
if [ -x "$INTEROP_CLIENT" ] && [ -x "$INTEROP_SERVER" ]; then
        run_cases "ours-grpc" "$INTEROP_SERVER" "$bin/interop_client" "$both"
        run_cases "grpc-ours" "$bin/interop_server" "$INTEROP_CLIENT" "$both"
else
        echo "skip: INTEROP_CLIENT and INTEROP_SERVER do not name gRPC's own programs"
fi
exit $failed
