// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/ps/protocol_model.h"
#include "tests/ps/protocol_probe.h"

namespace trireme::ps {
namespace {

// What describe(probe, value) adds, hashed once for each value.
template <class T, class Describe>
void add_hash(ProtocolProbe& probe, const Shared<T>& shared, const Describe& describe) {
  const Hash& hash = shared.hash([&](const T& value) {
    ProtocolProbe part;
    describe(part, value);
    return part.bytes;
  });
  probe.bytes.append(reinterpret_cast<const char*>(&hash), sizeof(hash));
}

void describe_view(ProtocolProbe& probe, const View& view) {
  probe.add(view.term);
  for (const RangeView& range : view.ranges) probe.add(range);
  for (const WorkerView& worker : view.workers) probe.add(worker.id);
  probe.add(view.failure.empty());
}

void describe_server(ProtocolProbe& probe, const ModelServer& server) {
  probe.add(server.runs);
  if (!server.runs) return;
  probe.add(server.replica);
  probe.add(server.values);
  probe.add_all(server.open);
  for (const auto& [ticket, clock] : server.entered) {
    probe.add(ticket);
    probe.add(clock);
  }
  for (const auto& [ticket, values] : server.reads) {
    probe.add(ticket);
    probe.add(values);
  }
}

}  // namespace

Hash System::fingerprint() const {
  ProtocolProbe probe;
  const auto add = [](ProtocolProbe& part, const auto& value) { part.add(value); };
  add_hash(probe, membership_, add);
  probe.add(static_cast<std::int64_t>(views_.size()));
  for (const auto& view : views_) add_hash(probe, view, describe_view);
  for (const auto& [id, server] : servers_) {
    probe.add(id);
    add_hash(probe, server, describe_server);
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
  probe.add(static_cast<std::int64_t>(network_.size()));
  for (const auto& message : network_) add_hash(probe, message, add);
  add_hash(probe, acknowledged_, [](ProtocolProbe& part, const auto& steps) {
    for (const auto& [worker, clock] : steps) part.add(worker * 64 + clock);
  });
  for (const int budget :
       {options_.server_crashes, options_.suspicions, options_.worker_crashes,
        options_.server_returns, options_.worker_returns, options_.moves, options_.handovers}) {
    probe.add(budget);
  }
  return Hash::of(probe.bytes);
}

}  // namespace trireme::ps
