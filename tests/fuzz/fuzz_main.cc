// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// libFuzzer's entry; TRIREME_FUZZ_TARGET is one of targets.h or rpc_targets.h.

#include <cstddef>
#include <cstdint>

#include "tests/fuzz/rpc_targets.h"
#include "tests/fuzz/targets.h"
#include "trireme/base/log.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);  // NOLINT: its name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);  // NOLINT

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  trireme::set_log_level(trireme::LogLevel::kOff);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  trireme::fuzz::TRIREME_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
