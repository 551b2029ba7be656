// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A process of a parameter server's job, for tests that kill and stop some of them.
//
//   ps_process coordinator PORT SERVERS WORKERS HEARTBEAT_MS ADDRESS
//   ps_process server ADDRESS PORT INDEX
//   ps_process worker ADDRESS PORT RANK STYLE STEPS [EVENT ACTION ARGUMENT]...
//
// A worker trains tests/ps/training.h's model and prints a hash of what it has at the end. Before
// the call of that number an action: `signal` SIGNAL:PID (0: itself), or `gate` FIFO: it waits
// until someone has opened that to write, and closed it. The errors that end a process are printed.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "tests/ps/training.h"
#include "tests/support/error_text.h"
#include "trireme/ps/coordinator.h"
#include "trireme/ps/server.h"

namespace trireme::ps {
namespace {

const std::string kSecret = "a secret of this test";

struct Action {
  std::string name;
  std::string argument;
};

void act(const Action& action) {
  if (action.name == "gate") {
    const int fd = ::open(action.argument.c_str(), O_RDONLY);
    char byte = 0;
    while (fd >= 0 && ::read(fd, &byte, 1) > 0) {
    }
    if (fd >= 0) ::close(fd);
    return;
  }
  const auto colon = action.argument.find(':');
  const int pid = std::atoi(action.argument.c_str() + colon + 1);
  ::kill(pid == 0 ? ::getpid() : pid, std::atoi(action.argument.c_str()));
}

void coordinate(const std::vector<std::string>& words) {
  Coordinator coordinator({.address = words[4],
                           .port = std::stoi(words[0]),
                           .secret = kSecret,
                           .servers = std::stoi(words[1]),
                           .workers = std::stoi(words[2]),
                           .heartbeat = std::chrono::milliseconds(std::stoi(words[3]))});
  coordinator.wait();
}

void serve(const std::vector<std::string>& words) {
  Server server({.coordinator_address = words[0],
                 .coordinator_port = std::stoi(words[1]),
                 .secret = kSecret,
                 .index = std::stoi(words[2]),
                 .threads = 1});
  fmt::print("{}\n", server.wait() == ServerEnd::kDropped ? "dropped" : "finished");
}

void work(const std::vector<std::string>& words) {
  std::map<int, Action> actions;
  for (std::size_t i = 5; i + 2 < words.size(); i += 3) {
    actions[std::stoi(words[i])] = {words[i + 1], words[i + 2]};
  }
  const WorkerOptions options{.coordinator_address = words[0],
                              .coordinator_port = std::stoi(words[1]),
                              .secret = kSecret,
                              .rank = std::stoi(words[2]),
                              .timeout = std::chrono::seconds(60)};
  const JobLayout layout = layout_of_style(words[3]);
  Script script = script_of_style(words[3], std::stoi(words[4]));
  int event = 0;
  script.event = [&] {
    const auto found = actions.find(event++);
    if (found != actions.end()) act(found->second);
  };
  Worker worker(options, layout);
  begin(worker);
  const std::string hash = hash_of(train(worker, script));
  worker.leave();
  fmt::print("{}\n", hash);
}

}  // namespace
}  // namespace trireme::ps

int main(int argc, char** argv) {
  using namespace trireme::ps;
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::vector<std::string> rest(words.begin() + 1, words.end());
  const std::string error = trireme::testing::failure_of([&] {
    if (words[0] == "coordinator") coordinate(rest);
    if (words[0] == "server") serve(rest);
    if (words[0] == "worker") work(rest);
  });
  if (error == "no error") return 0;
  fmt::print("{}\n", error);
  return 1;
}
