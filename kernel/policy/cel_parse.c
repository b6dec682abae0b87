/*
 * CEL's grammar: tokens to instructions, in one pass and without recursion. What is open (brackets, calls, macros, operators that
 * wait for their right side) lies on a stack of frames of at most CEL_MAX_DEPTH. The parser either expects an operand or an
 * operator; an operator first finishes the frames that bind tighter, which appends their instructions.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/policy/cel_internal.h"

enum frame_kind { F_START, F_PAREN, F_LIST, F_MAP_KEY, F_MAP_VALUE, F_INDEX, F_CALL, F_HAS, F_MACRO, F_COND, F_ELSE, F_UNARY, F_BINARY, F_AND, F_OR };
enum prec { P_NONE = -1, P_ELSE = 1, P_OR, P_AND, P_RELATION, P_SUM, P_PRODUCT, P_UNARY };

struct frame {
        uint8_t kind;
        int8_t prec;       /* of operators; P_NONE ends a reduction */
        uint8_t op;        /* F_UNARY, F_BINARY: instruction. F_MACRO: enum cel_macro. F_CALL: enum cel_fn */
        bool member;       /* F_CALL */
        uint32_t n;        /* arguments, elements or entries so far */
        uint32_t pos, at;  /* place in the text; instruction to patch */
        uint32_t first;    /* F_CALL, F_HAS: place of the first argument's operator or name */
        struct str name;   /* F_CALL: of the function. F_MACRO: the variable */
};

struct parser {
        struct cel *p;
        struct cel_error *err;
        struct cel_token t; /* the token to be looked at */
        uint32_t pos;       /* behind it */
        struct frame frames[CEL_MAX_DEPTH];
        uint32_t n;
        uint32_t iters;
        bool operand;       /* expects one */
};

#define fail_at(ps, at, ...) cel_fail((ps)->p->text, (ps)->err, at, __VA_ARGS__)

static int unexpected(struct parser *ps, const char *wanted)
{
        const struct cel_token *t = &ps->t;
        if (t->type == CEL_TOK_BAD)
                return fail_at(ps, t->pos, "Syntax error: token recognition error at: '%.*s'", t->text.n > 40 ? 40 : (int)t->text.n, t->text.p);
        return fail_at(ps, t->pos, "Syntax error: mismatched input '%.*s' expecting %s", t->text.n > 40 ? 40 : (int)t->text.n, t->text.p,
                       wanted);
}

static void advance(struct parser *ps)
{
        ps->t = cel_lex(ps->p->text, &ps->pos);
}

static enum cel_token_type peek(const struct parser *ps)
{
        uint32_t pos = ps->pos;
        return cel_lex(ps->p->text, &pos).type;
}

static int emit(struct parser *ps, enum cel_op op, uint32_t arg, uint32_t pos)
{
        return cel_emit(ps->p, ps->err, op, arg, pos);
}

static int emit_const(struct parser *ps, struct cel_value v, uint32_t pos)
{
        return cel_emit_const(ps->p, ps->err, v, pos);
}

/* ---- frames ---- */

static struct frame *top(struct parser *ps)
{
        return &ps->frames[ps->n - 1];
}

static int push(struct parser *ps, struct frame f)
{
        if (ps->n == CEL_MAX_DEPTH)
                return fail_at(ps, f.pos, "the expression is nested too deeply (more than %d levels)", CEL_MAX_DEPTH);
        ps->frames[ps->n++] = f;
        return 0;
}

static int finish_operator(struct parser *ps)
{
        struct frame f = ps->frames[--ps->n];
        int r = emit(ps,
                     f.kind == F_AND    ? CEL_OP_AND
                     : f.kind == F_OR   ? CEL_OP_OR
                     : f.kind == F_ELSE ? CEL_OP_COND_END
                                        : (enum cel_op)f.op,
                     0, f.pos);
        if (f.kind == F_AND || f.kind == F_OR || f.kind == F_ELSE)
                ps->p->code[f.at].arg = ps->p->n_code;
        return r;
}

/* Finishes what binds at least as tightly. */
static int reduce(struct parser *ps, enum prec prec)
{
        int r = 0;
        while (!r && top(ps)->prec >= (int)prec)
                r = finish_operator(ps);
        return r;
}

/* ---- names ---- */

static const struct {
        const char *name;
        enum cel_type type;
} type_names[] = {{"bool", CEL_BOOL}, {"int", CEL_INT},   {"uint", CEL_UINT}, {"double", CEL_DOUBLE}, {"string", CEL_STRING}, {"bytes", CEL_BYTES},
                  {"list", CEL_LIST}, {"map", CEL_MAP},   {"type", CEL_TYPE}, {"null_type", CEL_NULL}};

/* Reads ".protobuf.Timestamp" or ".protobuf.Duration" after `google`; CEL_ERROR when something else stands there. */
static enum cel_type well_known(struct parser *ps)
{
        struct str text = ps->p->text;
        uint32_t pos = ps->pos;
        struct cel_token t[4];
        for (int i = 0; i < 4; i++)
                t[i] = cel_lex(text, &pos);
        enum cel_type type = t[0].type != CEL_TOK_DOT || !str_eqz(t[1].text, "protobuf") || t[2].type != CEL_TOK_DOT ? CEL_ERROR
                             : str_eqz(t[3].text, "Timestamp")                                                       ? CEL_TIMESTAMP
                             : str_eqz(t[3].text, "Duration")                                                        ? CEL_DURATION
                                                                                                                     : CEL_ERROR;
        if (type != CEL_ERROR)
                ps->pos = pos;
        return type;
}

static int name(struct parser *ps, struct str s, uint32_t pos)
{
        uint32_t local = ps->iters;
        for (uint32_t i = ps->n; i-- > 0;) {
                if (ps->frames[i].kind != F_MACRO)
                        continue;
                local--;
                if (str_eq(ps->frames[i].name, s))
                        return emit(ps, CEL_OP_LOCAL, local, pos);
        }
        for (size_t i = 0; i < sizeof type_names / sizeof *type_names; i++)
                if (str_eqz(s, type_names[i].name))
                        return emit_const(ps, cel_type_value(type_names[i].type), pos);
        if (str_eqz(s, "google")) {
                enum cel_type type = well_known(ps);
                if (type != CEL_ERROR)
                        return emit_const(ps, cel_type_value(type), pos);
        }
        return cel_emit_name(ps->p, ps->err, CEL_OP_VAR, s, pos);
}

/* ---- calls and macros ---- */

static const char *const macro_names[CEL_MACROS] = {"all", "exists", "exists_one", "map", "filter"};

static enum cel_macro find_macro(struct str name)
{
        int i = 0;
        while (i < CEL_MACROS && !str_eqz(name, macro_names[i]))
                i++;
        return (enum cel_macro)i;
}

static int undeclared(struct parser *ps, struct str name, uint32_t pos)
{
        return fail_at(ps, pos, "undeclared reference to '%.*s' (in container '')", name.n > 100 ? 100 : (int)name.n, name.p);
}

static int finish_call(struct parser *ps)
{
        struct frame f = ps->frames[--ps->n];
        enum cel_macro m = f.member ? find_macro(f.name) : CEL_MACROS;
        uint32_t n = f.n + f.member;
        if (m < CEL_MACROS && (f.n == 2 || (m == CEL_MAP_MACRO && f.n == 3)))
                return fail_at(ps, f.first, m == CEL_MAP_MACRO || m == CEL_FILTER_MACRO ? "argument is not an identifier"
                                                                                        : "argument must be a simple name");
        if (f.op == CEL_FN_UNKNOWN)
                return undeclared(ps, f.name, f.pos);
        return cel_emit_call(ps->p, ps->err, (enum cel_fn)f.op, n, f.member, f.pos);
}

static int finish_has(struct parser *ps)
{
        struct frame f = ps->frames[--ps->n];
        struct cel_ins *last;
        if (f.n != 1 || ps->p->n_code == 0)
                return undeclared(ps, STR("has"), f.pos);
        last = &ps->p->code[ps->p->n_code - 1];
        if (last->op != CEL_OP_SELECT)
                return fail_at(ps, f.first, "invalid argument to has() macro");
        last->op = CEL_OP_HAS;
        return 0;
}

static int finish_macro(struct parser *ps)
{
        struct frame f = ps->frames[--ps->n];
        ps->iters--;
        if (f.n != 1 && !(f.n == 2 && f.op == CEL_MAP_MACRO))
                return undeclared(ps, str_of(macro_names[f.op]), f.pos);
        int r = emit(ps, CEL_OP_STEP, f.at + 1, f.pos);
        if (r)
                return r;
        ps->p->code[ps->p->n_code - 1].fn = f.op;
        ps->p->code[f.at].arg = ps->p->code[f.at + 1].arg = ps->p->n_code;
        return 0;
}

/* The call of a function: its name and the bracket have been read. */
static int open_call(struct parser *ps, struct str name, bool member, uint32_t pos)
{
        struct frame f = {.kind = F_CALL, .prec = P_NONE, .op = cel_function_find(name), .member = member, .pos = pos, .name = name};
        if (!member && str_eqz(name, "has"))
                f.kind = F_HAS;
        ps->operand = true;
        int r = push(ps, f);
        if (r || ps->t.type != CEL_TOK_RPAREN)
                return r;
        advance(ps);
        ps->operand = false;
        return f.kind == F_HAS ? finish_has(ps) : finish_call(ps);
}

/* ".all(x, …": the macro's name and the bracket have been read, the variable and the comma come next. */
static int open_macro(struct parser *ps, enum cel_macro m, uint32_t pos)
{
        struct frame f = {.kind = F_MACRO, .prec = P_NONE, .op = (uint8_t)m, .n = 1, .pos = pos, .at = ps->p->n_code, .name = ps->t.text};
        int r;
        if (cel_is_reserved(f.name))
                return fail_at(ps, ps->t.pos, "reserved identifier: %.*s", STR_FMT(f.name));
        if (ps->iters == CEL_MAX_ITERS)
                return fail_at(ps, pos, "too many macros inside each other (more than %d)", CEL_MAX_ITERS);
        if ((r = emit(ps, CEL_OP_ITER, 0, pos)) || (r = emit(ps, CEL_OP_NEXT, 0, pos)))
                return r;
        ps->p->code[f.at].fn = ps->p->code[f.at + 1].fn = (uint8_t)m;
        if (++ps->iters > ps->p->max_iters)
                ps->p->max_iters = ps->iters;
        advance(ps);
        advance(ps);
        ps->operand = true;
        return push(ps, f);
}

/* ---- an operand is expected ---- */

/* A run of `-` or `!`: pairs cancel out. */
static int prefix(struct parser *ps)
{
        enum cel_token_type type = ps->t.type;
        uint32_t pos = ps->t.pos, n = 0;
        for (; ps->t.type == type; n++) {
                enum cel_token_type next = peek(ps);
                if (type == CEL_TOK_MINUS && (next == CEL_TOK_INT || next == CEL_TOK_FLOAT))
                        break;
                advance(ps);
        }
        bool number = ps->t.type == CEL_TOK_MINUS && (peek(ps) == CEL_TOK_INT || peek(ps) == CEL_TOK_FLOAT);
        if ((ps->t.type == CEL_TOK_NOT || ps->t.type == CEL_TOK_MINUS) && !number)
                return unexpected(ps, "an operand");
        if (n % 2 == 0)
                return 0;
        return push(ps, (struct frame){.kind = F_UNARY, .prec = P_UNARY, .op = type == CEL_TOK_MINUS ? CEL_OP_NEG : CEL_OP_NOT, .pos = pos});
}

static int literal(struct parser *ps)
{
        const char *why = "";
        struct cel_value v;
        uint32_t pos = ps->t.pos;
        bool minus = ps->t.type == CEL_TOK_MINUS;
        if (minus)
                advance(ps);
        int r = cel_literal(&ps->p->arena, &ps->t, minus, &v, &why);
        if (r)
                return r == -EINVAL ? fail_at(ps, pos, "%s", why) : r;
        advance(ps);
        ps->operand = false;
        return emit_const(ps, v, pos);
}

static int ident(struct parser *ps)
{
        struct cel_token t;
        if (ps->t.type == CEL_TOK_DOT)
                advance(ps);
        if (ps->t.type != CEL_TOK_IDENT)
                return unexpected(ps, "IDENTIFIER");
        t = ps->t;
        if (cel_is_reserved(t.text))
                return fail_at(ps, t.pos, "reserved identifier: %.*s", STR_FMT(t.text));
        if (peek(ps) == CEL_TOK_LPAREN) {
                advance(ps);
                uint32_t pos = ps->t.pos;
                advance(ps);
                return open_call(ps, t.text, false, pos);
        }
        ps->operand = false;
        int r = name(ps, t.text, t.pos);
        advance(ps);
        return r;
}

/* An empty list or map, also with a lone comma. */
static bool at_close(struct parser *ps, enum cel_token_type close)
{
        if (ps->t.type == CEL_TOK_COMMA && peek(ps) == close)
                advance(ps);
        return ps->t.type == close;
}

static int open_bracket(struct parser *ps, enum frame_kind kind, enum cel_token_type close)
{
        struct frame f = {.kind = (uint8_t)kind, .prec = P_NONE, .pos = ps->t.pos};
        advance(ps);
        if (kind != F_PAREN && ps->t.type == CEL_TOK_QUESTION)
                return fail_at(ps, ps->t.pos, "unsupported syntax '?'");
        if (kind == F_PAREN || !at_close(ps, close))
                return push(ps, f);
        advance(ps);
        ps->operand = false;
        return emit(ps, kind == F_LIST ? CEL_OP_LIST : CEL_OP_MAP, 0, f.pos);
}

static int operand(struct parser *ps)
{
        switch ((int)ps->t.type) {
        case CEL_TOK_LPAREN:
                return open_bracket(ps, F_PAREN, CEL_TOK_RPAREN);
        case CEL_TOK_LBRACKET:
                return open_bracket(ps, F_LIST, CEL_TOK_RBRACKET);
        case CEL_TOK_LBRACE:
                return open_bracket(ps, F_MAP_KEY, CEL_TOK_RBRACE);
        case CEL_TOK_MINUS:
                if (peek(ps) == CEL_TOK_INT || peek(ps) == CEL_TOK_FLOAT)
                        return literal(ps);
                return prefix(ps);
        case CEL_TOK_NOT:
                return prefix(ps);
        case CEL_TOK_IDENT:
        case CEL_TOK_DOT:
                return ident(ps);
        case CEL_TOK_INT:
        case CEL_TOK_UINT:
        case CEL_TOK_FLOAT:
        case CEL_TOK_STRING:
        case CEL_TOK_BYTES:
        case CEL_TOK_TRUE:
        case CEL_TOK_FALSE:
        case CEL_TOK_NULL:
                return literal(ps);
        default:
                return unexpected(ps, "an operand");
        }
}

/* ---- an operator is expected ---- */

static int dot(struct parser *ps)
{
        uint32_t pos = ps->t.pos;
        advance(ps);
        if (ps->t.type == CEL_TOK_QUESTION)
                return fail_at(ps, pos, "unsupported syntax '.?'");
        if (ps->t.type != CEL_TOK_IDENT)
                return unexpected(ps, "IDENTIFIER");
        struct str s = ps->t.text;
        advance(ps);
        if (ps->t.type != CEL_TOK_LPAREN)
                return cel_emit_name(ps->p, ps->err, CEL_OP_SELECT, s, pos);
        pos = ps->t.pos;
        advance(ps);
        enum cel_macro m = find_macro(s);
        if (m < CEL_MACROS && ps->t.type == CEL_TOK_IDENT && peek(ps) == CEL_TOK_COMMA)
                return open_macro(ps, m, pos);
        return open_call(ps, s, true, pos);
}

static int binary(struct parser *ps, enum frame_kind kind, enum cel_op op, enum prec prec)
{
        uint32_t pos = ps->t.pos;
        int r = reduce(ps, prec);
        struct frame f = {.kind = (uint8_t)kind, .prec = (int8_t)prec, .op = (uint8_t)op, .pos = pos, .at = ps->p->n_code};
        if (!r && kind != F_BINARY)
                r = emit(ps, kind == F_AND ? CEL_OP_AND_JUMP : CEL_OP_OR_JUMP, 0, pos);
        if (r)
                return r;
        advance(ps);
        ps->operand = true;
        return push(ps, f);
}

static int question(struct parser *ps)
{
        struct frame f = {.kind = F_COND, .prec = P_NONE, .pos = ps->t.pos};
        int r = reduce(ps, P_OR);
        if (r)
                return r;
        if (top(ps)->kind == F_COND)
                return unexpected(ps, "':'");
        f.at = ps->p->n_code;
        if ((r = emit(ps, CEL_OP_COND, 0, f.pos)))
                return r;
        advance(ps);
        ps->operand = true;
        return push(ps, f);
}

static int colon(struct parser *ps)
{
        uint32_t at;
        int r = reduce(ps, P_OR);
        if (r)
                return r;
        if (top(ps)->kind == F_COND) {
                at = ps->p->n_code;
                if ((r = emit(ps, CEL_OP_JUMP, 0, ps->t.pos)))
                        return r;
                ps->p->code[top(ps)->at].arg = ps->p->n_code;
                top(ps)->kind = F_ELSE;
                top(ps)->prec = P_ELSE;
                top(ps)->at = at;
        } else if ((r = reduce(ps, P_ELSE))) {
                return r;
        } else if (top(ps)->kind == F_MAP_KEY) {
                top(ps)->kind = F_MAP_VALUE;
        } else {
                return unexpected(ps, "<EOF>");
        }
        advance(ps);
        ps->operand = true;
        return 0;
}

static int comma(struct parser *ps)
{
        int r = reduce(ps, P_ELSE);
        struct frame *f = top(ps);
        if (r)
                return r;
        switch ((int)f->kind) {
        case F_LIST:
                break;
        case F_MAP_VALUE:
                f->kind = F_MAP_KEY;
                break;
        case F_CALL:
        case F_HAS:
                break;
        case F_MACRO:
                if (f->n == 1 && f->op == CEL_MAP_MACRO)
                        r = emit(ps, CEL_OP_FILTER, f->at + 1, f->pos);
                break;
        default:
                return unexpected(ps, f->kind == F_COND ? "':'" : f->kind == F_START ? "<EOF>" : "a closing bracket");
        }
        if (!f->n++)
                f->first = ps->p->code[ps->p->n_code - 1].pos;
        if (r)
                return r;
        if ((f->kind == F_LIST && peek(ps) == CEL_TOK_RBRACKET) || (f->kind == F_MAP_KEY && peek(ps) == CEL_TOK_RBRACE)) {
                f->n--; /* the last one, which its bracket counts */
                if (f->kind == F_MAP_KEY)
                        f->kind = F_MAP_VALUE;
                advance(ps);
                return 0;
        }
        advance(ps);
        ps->operand = true;
        if ((f->kind == F_LIST || f->kind == F_MAP_KEY) && ps->t.type == CEL_TOK_QUESTION)
                return fail_at(ps, ps->t.pos, "unsupported syntax '?'");
        return 0;
}

static int close_bracket(struct parser *ps)
{
        static const uint8_t closes[] = {[F_PAREN] = CEL_TOK_RPAREN, [F_LIST] = CEL_TOK_RBRACKET,    [F_MAP_VALUE] = CEL_TOK_RBRACE, [F_INDEX] = CEL_TOK_RBRACKET,
                                         [F_CALL] = CEL_TOK_RPAREN,  [F_HAS] = CEL_TOK_RPAREN,       [F_MACRO] = CEL_TOK_RPAREN,     [F_OR] = 0};
        int r = reduce(ps, P_ELSE);
        if (r)
                return r;
        struct frame f = *top(ps);
        if (!closes[f.kind] || closes[f.kind] != ps->t.type)
                return unexpected(ps, f.kind == F_COND || f.kind == F_MAP_KEY ? "':'" : f.kind == F_START ? "<EOF>" : "another closing bracket");
        advance(ps);
        if (!top(ps)->n++)
                top(ps)->first = ps->p->code[ps->p->n_code - 1].pos;
        switch ((int)f.kind) {
        case F_CALL:
                return finish_call(ps);
        case F_HAS:
                return finish_has(ps);
        case F_MACRO:
                top(ps)->n--;
                return finish_macro(ps);
        default:
                break;
        }
        ps->n--;
        switch ((int)f.kind) {
        case F_LIST:
                return emit(ps, CEL_OP_LIST, f.n + 1, f.pos);
        case F_MAP_VALUE:
                return emit(ps, CEL_OP_MAP, f.n + 1, f.pos);
        case F_INDEX:
                return emit(ps, CEL_OP_INDEX, 0, f.pos);
        default:
                return 0;
        }
}

static int open_index(struct parser *ps)
{
        struct frame f = {.kind = F_INDEX, .prec = P_NONE, .pos = ps->t.pos};
        advance(ps);
        if (ps->t.type == CEL_TOK_QUESTION)
                return fail_at(ps, f.pos, "unsupported syntax '[?'");
        ps->operand = true;
        return push(ps, f);
}

static int operator(struct parser *ps)
{
        static const struct {
                uint8_t op, prec;
        } table[] = {[CEL_TOK_EQ] = {CEL_OP_EQ, P_RELATION},    [CEL_TOK_NE] = {CEL_OP_NE, P_RELATION},   [CEL_TOK_LT] = {CEL_OP_LT, P_RELATION},
                     [CEL_TOK_LE] = {CEL_OP_LE, P_RELATION},    [CEL_TOK_GT] = {CEL_OP_GT, P_RELATION},   [CEL_TOK_GE] = {CEL_OP_GE, P_RELATION},
                     [CEL_TOK_IN] = {CEL_OP_IN, P_RELATION},    [CEL_TOK_PLUS] = {CEL_OP_ADD, P_SUM},     [CEL_TOK_MINUS] = {CEL_OP_SUB, P_SUM},
                     [CEL_TOK_STAR] = {CEL_OP_MUL, P_PRODUCT},  [CEL_TOK_SLASH] = {CEL_OP_DIV, P_PRODUCT}, [CEL_TOK_PERCENT] = {CEL_OP_MOD, P_PRODUCT},
                     [CEL_TOK_BAD] = {0, 0}};
        if (table[ps->t.type].prec)
                return binary(ps, F_BINARY, (enum cel_op)table[ps->t.type].op, (enum prec)table[ps->t.type].prec);
        switch ((int)ps->t.type) {
        case CEL_TOK_DOT:
                return dot(ps);
        case CEL_TOK_LBRACKET:
                return open_index(ps);
        case CEL_TOK_AND:
                return binary(ps, F_AND, CEL_OP_AND, P_AND);
        case CEL_TOK_OR:
                return binary(ps, F_OR, CEL_OP_OR, P_OR);
        case CEL_TOK_QUESTION:
                return question(ps);
        case CEL_TOK_COLON:
                return colon(ps);
        case CEL_TOK_COMMA:
                return comma(ps);
        case CEL_TOK_RPAREN:
        case CEL_TOK_RBRACKET:
        case CEL_TOK_RBRACE:
                return close_bracket(ps);
        case CEL_TOK_LBRACE:
                return fail_at(ps, ps->t.pos, "messages cannot be made here");
        default:
                return unexpected(ps, "an operator");
        }
}

static int finish(struct parser *ps)
{
        int r = ps->operand ? unexpected(ps, "an operand") : reduce(ps, P_ELSE);
        if (r)
                return r;
        if (top(ps)->kind == F_START)
                return 0;
        return unexpected(ps, top(ps)->kind == F_COND || top(ps)->kind == F_MAP_KEY ? "':'" : "a closing bracket");
}

int cel_parse(struct cel *p, struct cel_error *err)
{
        struct parser *ps = calloc(1, sizeof *ps);
        int r = 0;
        if (!ps)
                return -ENOMEM;
        ps->p = p;
        ps->err = err;
        ps->operand = true;
        ps->frames[ps->n++] = (struct frame){.kind = F_START, .prec = P_NONE};
        advance(ps);
        while (!r && ps->t.type != CEL_TOK_END)
                r = ps->operand ? operand(ps) : operator(ps);
        if (!r)
                r = finish(ps);
        free(ps);
        return r;
}
