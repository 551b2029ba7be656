// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// broadcast of S bytes to n ranks. Small: with the greeting. Up to kDirectBytes: from the root to
// everybody. More: the root's link would carry (n - 1) S, so it gives every other rank one of n - 1
// parts, S in all, and the others exchange their parts, slice by slice.

#include <vector>

#include "trireme/comm/message/message_state.h"
#include "trireme/comm/message/slices.h"

namespace trireme {
namespace {

constexpr Lane kScatterLane{Lane::Purpose::kScatter};
constexpr Lane kGatherLane{Lane::Purpose::kGather};

// What a root sends in the time of one more exchange, at 10 Gbit/s and 200 us.
constexpr std::size_t kDirectBytes = 256 << 10;

std::span<std::byte> bytes_of(const Buffer& data, const Block& block) {
  const std::size_t element = dtype_bytes(data.dtype);
  return {static_cast<std::byte*>(data.data) + static_cast<std::size_t>(block.offset) * element,
          static_cast<std::size_t>(block.count) * element};
}

// Every rank but the root has a part.
std::vector<Block> parts_of(const Buffer& data, int ranks, int root) {
  std::vector<Block> parts = even_parts(data.count, ranks - 1);
  parts.insert(parts.begin() + root, Block{});
  return parts;
}

void broadcast_slices(MessageState& state, const Buffer& data, int root, const OperationName& name,
                      const Deadline& deadline) {
  const int rank = state.scope.rank;
  const int n = state.scope.size();
  const std::size_t slice_bytes = kStepBytes / static_cast<std::size_t>(n - 1);
  const Slices slices(parts_of(data, n, root),
                      static_cast<std::int64_t>(slice_bytes / dtype_bytes(data.dtype)));
  const auto slice = [&](std::int64_t s, int owner) {
    return bytes_of(data, slices.slice(s, owner));
  };
  std::unique_ptr<Flight> scattering[kStepsUnderWay];
  std::unique_ptr<Flight> gathering[kStepsUnderWay];
  for (auto& flight : scattering) flight = state.payload->make_flight();
  for (auto& flight : gathering) flight = state.payload->make_flight();
  const auto scatter = [&](std::int64_t s) {
    Flight& flight = *scattering[s % kStepsUnderWay];
    if (rank != root) {
      const auto own = slice(s, rank);
      return flight.receive(root, kScatterLane, own.data(), own.size());
    }
    state.for_each_peer([&](int peer) { state.send(flight, peer, kScatterLane, slice(s, peer)); });
  };
  const auto combine = [&](std::int64_t s) {
    scattering[s % kStepsUnderWay]->wait(name, deadline);
  };
  const auto gather = [&](std::int64_t s) {
    if (rank == root) return;
    Flight& flight = *gathering[s % kStepsUnderWay];
    state.for_each_peer([&](int peer) {
      const auto theirs = slice(s, peer);
      if (peer != root) flight.receive(peer, kGatherLane, theirs.data(), theirs.size());
    });
    state.for_each_peer([&](int peer) {
      if (peer != root) state.send(flight, peer, kGatherLane, slice(s, rank));
    });
  };
  const auto finish = [&](std::int64_t s) { gathering[s % kStepsUnderWay]->wait(name, deadline); };
  pipeline(slices.steps(), scatter, combine, gather, finish);
}

}  // namespace

void broadcast(MessageState& state, const Collective& collective, const Deadline& deadline) {
  const Signature& signature = collective.signature;
  const int rank = state.scope.rank;
  const int root = signature.root;
  const std::span<std::byte> all = bytes_of(collective.output, Block{0, collective.output.count});
  const bool small = state.is_small(all.size());
  if (small && rank == root) {
    std::size_t size = 0;
    state.enclose(rank, size, all);
    state.greetings.give_all_the_same();
    state.for_each_peer([&](int peer) { state.count_sent(peer, all.size()); });
  }
  state.greetings.meet(collective.identity(), deadline);
  if (small) {
    if (rank != root) {
      state.memory->copy(all.data(), state.greetings.from(root).data, all.size());
    }
    return;
  }
  const OperationName name(collective.identity());
  const std::size_t others = static_cast<std::size_t>(state.scope.size()) - 1;
  if (others > 1 && all.size() * others > kDirectBytes) {
    return broadcast_slices(state, collective.output, root, name, deadline);
  }
  const std::unique_ptr<Flight> flight = state.payload->make_flight();
  if (rank == root) {
    state.for_each_peer([&](int peer) { state.send(*flight, peer, kScatterLane, all); });
  } else {
    flight->receive(root, kScatterLane, all.data(), all.size());
  }
  flight->wait(name, deadline);
}

}  // namespace trireme
