// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/serve_parameters.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/ps/coordinator.h"
#include "trireme/ps/coordinator_link.h"
#include "trireme/ps/server.h"
#include "trireme/train/termination.h"

namespace trireme {
namespace {

using namespace std::chrono_literals;

// For the coordinator to appear, in attempts after which a request to end is looked for.
constexpr auto kJoinTime = 5min;
constexpr auto kJoinAttempt = 2s;
// How often the coordinator looks whether it has been told to end.
constexpr auto kLook = 100ms;
// Who ends a job tells coordinator and servers at once, and one may hear of the other's end first.
constexpr auto kToldTogether = 1s;

// The least number of updates that this share of the gradients is at most late.
std::size_t lateness(const std::vector<std::int64_t>& staleness, double share) {
  const auto all = std::accumulate(staleness.begin(), staleness.end(), std::int64_t{0});
  std::int64_t so_far = 0;
  std::size_t late = 0;
  for (; late + 1 < staleness.size(); ++late) {
    so_far += staleness[late];
    if (static_cast<double>(so_far) >= share * static_cast<double>(all)) break;
  }
  return late;
}

std::string summary(const ps::ServerReport& report) {
  std::string text = fmt::format("{} updates of ranges", report.updates);
  if (report.memory_bytes > 0) {
    text += fmt::format(", {} rows; its tables take {} MiB with those that it is the backup of",
                        report.rows, report.memory_bytes >> 20);
  }
  if (!report.staleness.empty()) {
    text += fmt::format("; half of the gradients at most {} updates late, 99 % at most {}, all {}",
                        lateness(report.staleness, 0.5), lateness(report.staleness, 0.99),
                        report.staleness.size() - 1);
  }
  return text;
}

// Null: this process has been told to end.
std::unique_ptr<ps::Server> join(const ps::ServerOptions& options, const Termination& termination) {
  const Deadline deadline = Deadline::after(kJoinTime);
  for (bool said = false; !termination.told(); said = true) {
    try {
      return std::make_unique<ps::Server>(options);
    } catch (const ps::PlaceTakenError&) {
      // Its former process has fallen silent, which takes a heartbeat to be known.
      if (deadline.expired()) throw;
    } catch (const TimeoutError&) {
      if (deadline.expired()) throw;
      if (said) continue;
      log_info("server {}: no coordinator at {} yet; it has {} s to come", options.index,
               endpoint_text(options.coordinator_address, options.coordinator_port),
               std::chrono::seconds(kJoinTime).count());
    }
  }
  return nullptr;
}

void serve(const ServeParametersOptions& options, Termination& termination) {
  const std::string name = fmt::format("server {}", options.job.index);
  const std::string coordinator = endpoint_text(options.job.address, options.job.port);
  for (bool again = true; again;) {
    const auto server = join({.coordinator_address = options.job.address,
                              .coordinator_port = options.job.port,
                              .secret = options.secret,
                              .index = options.job.index,
                              .address = options.bind_address,
                              .join_timeout = kJoinAttempt},
                             termination);
    if (server == nullptr) return;
    log_info("{} listens at {}, for the coordinator at {}", name,
             endpoint_text(server->address(), server->port()), coordinator);
    const Termination::Action action(termination, [&] { server->stop(); });
    try {
      again = server->wait() == ps::ServerEnd::kDropped && !termination.told();
    } catch (const CommError&) {
      if (!termination.wait_for(kToldTogether)) throw;
      again = false;
    }
    log_info("{}: {}", name, summary(server->report()));
    if (again) {
      log_warn("{} was taken for gone, and what it held is held by others now: it joins again",
               name);
    }
  }
}

void coordinate(const ServeParametersOptions& options, const Termination& termination) {
  ps::Coordinator coordinator({.address = options.job.address,
                               .port = options.job.port,
                               .listen_fd = options.listen_fd,
                               .secret = options.secret,
                               .servers = options.job.servers,
                               .workers = options.job.workers});
  log_info("the coordinator of {} servers and {} workers listens at {}", options.job.servers,
           options.job.workers, endpoint_text(options.job.address, coordinator.port()));
  while (!termination.told()) {
    if (coordinator.wait_for(kLook)) return log_info("all workers have done their work");
  }
}

}  // namespace

int serve_parameters(const ServeParametersOptions& options) {
  Termination termination;
  if (options.role == JobRole::kServer) {
    serve(options, termination);
  } else {
    coordinate(options, termination);
  }
  if (options.launched) termination.wait();
  return 0;
}

}  // namespace trireme
