/* A backend in C over JSON lines: it decodes Q8_0 (half d; int8 q[32]; x = d * q) and knows nothing else.

   cc -O1 -o q8_0 q8_0.c && python -m conformance run --backend jsonl:./q8_0

   It looks for the fields by their names instead of parsing JSON: the runner writes them in one spelling. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float half(uint16_t h) {
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    float x = exponent == 31 ? (mantissa ? NAN : INFINITY)
            : exponent ? ldexpf(1024 + mantissa, exponent - 25) : ldexpf(mantissa, -24);
    return h >> 15 ? -x : x;
}

static int byte(const char *hex) {
    char two[3] = {hex[0], hex[1], 0};
    return (int)strtol(two, NULL, 16);
}

static void decode(const char *line) {
    const char *shape = strstr(line, "\"shape\": ["), *hex = strstr(line, "\"hex\": \"");
    long rows, row_bytes;
    if (!shape || !hex || sscanf(shape, "\"shape\": [%ld, %ld]", &rows, &row_bytes) != 2 || row_bytes % 34) {
        puts("{\"refused\": \"bytes are no whole blocks of 34\"}");
        return;
    }
    hex += strlen("\"hex\": \"");
    printf("{\"outputs\": {\"values\": {\"dtype\": \"float32\", \"shape\": [%ld, %ld], \"hex\": \"", rows,
           row_bytes / 34 * 32);
    for (long block = 0; block < rows * row_bytes / 34; block++, hex += 2 * 34) {
        float d = half((uint16_t)(byte(hex) | byte(hex + 2) << 8));
        for (int i = 0; i < 32; i++) {
            float x = d * (int8_t)byte(hex + 4 + 2 * i);
            uint32_t bits;
            memcpy(&bits, &x, 4);
            for (int shift = 0; shift < 32; shift += 8) printf("%02x", bits >> shift & 255);
        }
    }
    puts("\"}}}");
}

int main(void) {
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        if (strstr(line, "\"cmd\": \"stop\"")) break;
        if (strstr(line, "\"cmd\": \"start\""))
            puts("{\"name\": \"q8_0.c\", \"version\": \"1\"}");
        else if (strstr(line, "\"algorithm\": \"gguf.Q8_0\", \"op\": \"decode\""))
            decode(line);
        else
            puts("{\"unsupported\": \"Q8_0 decode only\"}");
        fflush(stdout);
    }
    free(line);
    return 0;
}
