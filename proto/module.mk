# Filled by the proto folder: generated sources and the `gen` target.
LIBS += proto
proto_SRC :=
gen: ;
