// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Bytes that are no messages, for whoever reads what came over a wire.
#pragma once

#include <rapidcheck.h>

#include <cstddef>
#include <string>

namespace trireme::testing {

// Bytes as they come, or valid ones of which some have changed or the end is missing.
inline std::string malformed(const std::string& valid) {
  auto bytes = *rc::gen::oneOf(rc::gen::container<std::string>(rc::gen::arbitrary<char>()),
                               rc::gen::just(valid));
  const auto changes = *rc::gen::inRange(0, 4);
  for (int i = 0; i < changes && !bytes.empty(); ++i) {
    bytes[*rc::gen::inRange<std::size_t>(0, bytes.size())] = *rc::gen::arbitrary<char>();
  }
  if (*rc::gen::arbitrary<bool>()) {
    bytes.resize(*rc::gen::inRange<std::size_t>(0, bytes.size() + 1));
  }
  return bytes;
}

}  // namespace trireme::testing
