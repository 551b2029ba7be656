// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Writes a click log with a planted rule, in the form of Criteo's public ones.
// Run:     ./make_click_log clicks.tsv 1000000 [SEED]
// Prints:  clicks.tsv: 1000000 samples

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "examples/support/click_generator.h"
#include "trireme/base/error.h"

namespace {

std::int64_t whole_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc() || end != text.end() || value < 0) {
    trireme::throw_error<trireme::ConfigError>("'{}' is no number of samples and no seed", text);
  }
  return value;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3 && argc != 4) {
    trireme::throw_error<trireme::ConfigError>("{} arguments: give FILE SAMPLES [SEED]", argc - 1);
  }
  const std::int64_t samples = whole_number(argv[2]);
  const auto seed = static_cast<std::uint64_t>(argc == 4 ? whole_number(argv[3]) : 1);
  trireme::examples::write_click_log(trireme::examples::ClickGenerator({.seed = seed}), samples,
                                     argv[1]);
  std::printf("%s: %ld samples\n", argv[1], samples);
} catch (const trireme::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 2;
}
