/* Writes NAME.lines beside a file: how many lines it has. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define EXIT_FATAL 65 /* another try would fail the same way */

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return EXIT_FAILURE;
}

/* Makes the directories of a path. */
static int make_parents(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int made = mkdir(path, 0777);
        *slash = '/';
        if (made != 0 && errno != EEXIST)
            return -1;
    }
    return 0;
}

int main(void)
{
    const char *input = getenv("S3MOUNT_INPUT"), *name = getenv("S3MOUNT_NAME");
    if (!input || !name) {
        fputs("this hook is for files that were written\n", stderr);
        return EXIT_FATAL;
    }
    FILE *file = fopen(input, "rb");
    if (!file)
        return fail(input);
    unsigned long lines = 0;
    for (int c; (c = getc(file)) != EOF;)
        lines += c == '\n';
    if (ferror(file))
        return fail(input);
    fclose(file);

    char output[2048];
    if ((size_t)snprintf(output, sizeof output, "/out/%s.lines", name) >= sizeof output) {
        fputs("the name is too long\n", stderr);
        return EXIT_FATAL;
    }
    if (make_parents(output) != 0)
        return fail(output);
    FILE *result = fopen(output, "wb");
    if (!result || fprintf(result, "%lu\n", lines) < 0 || fclose(result) != 0)
        return fail(output);
    fprintf(stderr, "%lu lines in %s\n", lines, name);
    return EXIT_SUCCESS;
}
