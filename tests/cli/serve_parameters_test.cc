// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What trireme serve-parameters refuses; tests/launch/serving_test.cc has how it is started.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

const Program::Environment kNothing = {{"TRIREME_SECRET", ""}};
const Program::Environment kServer = {{"TRIREME_ROLE", "server"},
                                      {"TRIREME_PS_COORDINATOR", "127.0.0.1:29502"},
                                      {"TRIREME_PS_SERVERS", "2"},
                                      {"TRIREME_PS_WORKERS", "3"},
                                      {"TRIREME_PS_INDEX", "1"}};

void refused(const std::vector<std::string>& options, const std::vector<std::string>& words,
             const Program::Environment& environment = kNothing) {
  std::vector<std::string> argv = {kTrireme, "serve-parameters"};
  argv.insert(argv.end(), options.begin(), options.end());
  expect_refused(run_program(argv, std::chrono::seconds(60), environment), words);
}

TEST(ServeParametersTest, RefusesAServerByHand) {
  refused({}, {"--coordinator host:port", "trireme launch --servers"});
  refused({"--coordinator", "host0", "--index", "0"}, {"--coordinator host0", "host:port"});
  refused({"--coordinator", "127.0.0.1:29502"}, {"a server needs --index"});
  refused({"--coordinator", "127.0.0.1:29502", "--index", "-1"}, {"--index -1"});
  refused({"--coordinator", "127.0.0.1:29502", "--index", "one"}, {"--index", "one"});
  refused({"--coordinator", "127.0.0.1:29502", "--index", "0", "--port", "29502"},
          {"--port", "coordinator"});
  refused({"--coordinator", "host0:29502", "--index", "0"}, {"host0:29502", "TRIREME_SECRET"});
  refused({"--role", "worker"}, {"--role worker", "server", "coordinator"});
}

TEST(ServeParametersTest, RefusesACoordinatorByHand) {
  const auto coordinator = [](std::vector<std::string> options) {
    options.insert(options.begin(), {"--role", "coordinator"});
    return options;
  };
  refused(coordinator({"--servers", "1", "--workers", "2"}), {"needs --port"});
  refused(coordinator({"--port", "0", "--servers", "1", "--workers", "2"}), {"--port"});
  refused(coordinator({"--port", "29502", "--workers", "2"}), {"needs --servers"});
  refused(coordinator({"--port", "29502", "--servers", "1"}), {"needs --workers"});
  refused(coordinator({"--port", "29502", "--servers", "0", "--workers", "2"}), {"--servers 0"});
  refused(coordinator({"--port", "29502", "--servers", "1", "--workers", "-2"}), {"--workers -2"});
  refused(coordinator({"--coordinator", "127.0.0.1:29502"}), {"--coordinator", "--port"});
  refused(coordinator({"--index", "1"}), {"--index"});
  refused(
      coordinator({"--port", "29502", "--servers", "1", "--workers", "2", "--bind", "10.77.0.1"}),
      {"10.77.0.1:29502", "TRIREME_SECRET"});
}

TEST(ServeParametersTest, RefusesToBeToldTwice) {
  refused({"--index", "1"}, {"--index", "trireme launch"}, kServer);
  refused({"--role", "server"}, {"--role", "trireme launch"}, kServer);
  Program::Environment other = kServer;
  other.back().second = "2";
  refused({}, {"TRIREME_PS_INDEX=2", "TRIREME_PS_SERVERS=2"}, other);
}

}  // namespace
}  // namespace trireme::testing
