// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/ps/protocol_model.h"
#include "tests/ps/protocol_probe.h"

namespace trireme::ps {

std::string System::fingerprint() const {
  ProtocolProbe probe;
  probe.add(membership_);
  for (const View& view : views_) {
    probe.add(view.term);
    for (const RangeView& range : view.ranges) probe.add(range);
    for (const WorkerView& worker : view.workers) probe.add(worker.id);
    probe.add(view.failure.empty());
  }
  for (const auto& [id, server] : servers_) {
    probe.add(id);
    probe.add(server.runs);
    if (!server.runs) continue;
    probe.add(server.replica);
    probe.add(server.values);
    probe.add(static_cast<std::int64_t>(server.reads.size()));
    for (const auto& [ticket, values] : server.reads) {
      probe.add(ticket);
      probe.add(values);
    }
  }
  for (const auto& [id, worker] : workers_) {
    probe.add(id);
    probe.add(worker.runs);
    probe.add(worker.term);
    probe.add(static_cast<std::int64_t>(worker.wants));
    probe.add(worker.clock);
    probe.add(worker.seen);
  }
  for (const ServerId id : undetected_servers_) probe.add(id);
  probe.add(-1);
  for (const WorkerId id : undetected_workers_) probe.add(id);
  probe.add(-1);
  probe.add_all(network_);
  for (const auto& [worker, clock] : acknowledged_) probe.add(worker * 64 + clock);
  for (const int budget :
       {options_.server_crashes, options_.suspicions, options_.worker_crashes,
        options_.server_returns, options_.worker_returns, options_.moves, options_.handovers}) {
    probe.add(budget);
  }
  return probe.bytes;
}

}  // namespace trireme::ps
