/* SPDX-License-Identifier: MIT */
/*
 * Stands in for libFuzzer where it is not to be had: gives every file of the
 * directories named to the fuzz target once, and counts them.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static int replay_file(const char *path) {
  uint8_t *bytes = NULL;
  long count;
  FILE *file = fopen(path, "rb");

  if (file == NULL || fseek(file, 0, SEEK_END) != 0)
    return -1;
  count = ftell(file);
  rewind(file);
  if (count >= 0)
    bytes = malloc((size_t)count + 1);
  if (bytes != NULL && fread(bytes, 1, (size_t)count, file) == (size_t)count) {
    LLVMFuzzerTestOneInput(bytes, (size_t)count);
    count = 0;
  } else {
    count = -1;
  }
  free(bytes);
  fclose(file);
  return (int)count;
}

int main(int argc, char **argv) {
  unsigned passed = 0, failed = 0;

  for (int i = 1; i < argc; i++) {
    struct dirent *entry;
    DIR *directory = opendir(argv[i]);
    if (directory == NULL) {
      perror(argv[i]);
      failed++;
      continue;
    }
    while ((entry = readdir(directory)) != NULL) {
      char path[4096];
      if (entry->d_name[0] == '.')
        continue;
      snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
      if (replay_file(path) == 0)
        passed++;
      else
        failed++;
    }
    closedir(directory);
  }
  printf("%u passed, %u failed\n", passed, failed);
  return failed != 0 || passed == 0;
}
