// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "bench/peers/peer_main.h"

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>

#include "trireme/comm/bench/sizes.h"

namespace trireme::peers {

void add_peer_options(CLI::App& app, PeerArguments& arguments) {
  app.add_option("--op", arguments.operations)->delimiter(',');
  app.add_option("--bytes", arguments.bytes)->delimiter(',');
  app.add_option("--repetitions", arguments.timing.max_samples);
  app.add_option("--seconds", arguments.timing.seconds);
}

void run_peer(const PeerVariant& variant, const PeerArguments& arguments) {
  CommBenchOptions options;
  for (const std::string& operation : arguments.operations) {
    const auto& has = variant.operations;
    if (std::find(has.begin(), has.end(), operation) != has.end()) {
      options.operations.push_back(operation);
    }
  }
  if (options.operations.empty()) return;
  for (const std::string& size : arguments.bytes) options.bytes.push_back(parse_bytes(size));
  options.timing = arguments.timing;
  options.validate();
  constexpr std::size_t kLine = 64;
  std::unique_ptr<void, decltype(&std::free)> memory(nullptr, &std::free);
  const auto allocate = [&memory](std::size_t bytes) {
    memory.reset(std::aligned_alloc(kLine, (bytes / kLine + 1) * kLine));
    return std::span<std::byte>(static_cast<std::byte*>(memory.get()), bytes);
  };
  bench_subject_cases(variant.subject,
                      {.engine = variant.name, .memory = "heap", .limit = {}, .allocate = allocate},
                      options, [&](const CommBenchRow& row) {
                        if (variant.subject.rank != 0) return;
                        std::printf("%s\n", to_json(row).c_str());
                        std::fflush(stdout);
                      });
}

}  // namespace trireme::peers
