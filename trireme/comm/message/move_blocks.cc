// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Blocks go from the rank that has them to the rank that wants them, each once: all_gather, gather,
// scatter, all_to_all. All that is not small starts at once, from and to the caller's memory.

#include <vector>

#include "trireme/comm/message/message_state.h"

namespace trireme {
namespace {

constexpr Lane kLane{Lane::Purpose::kGather};

std::span<const std::byte> bytes_of(const ConstBuffer& buffer, const Block& block) {
  const std::size_t element = dtype_bytes(buffer.dtype);
  return {
      static_cast<const std::byte*>(buffer.data) + static_cast<std::size_t>(block.offset) * element,
      static_cast<std::size_t>(block.count) * element};
}

// What goes where, by peer; this rank's own block among them.
struct Moves {
  std::vector<Block> out;
  std::vector<Block> in;
};

Moves moves_of(const GroupScope& scope, const Collective& collective) {
  const auto n = static_cast<std::size_t>(scope.size());
  const auto root = static_cast<std::size_t>(std::max(collective.signature.root, 0));
  const bool is_root = collective.signature.root == scope.rank;
  const Block whole_input{0, collective.input.count};
  const Block whole_output{0, collective.output.count};
  Moves moves{std::vector<Block>(n), std::vector<Block>(n)};
  switch (collective.signature.kind) {
    case CollectiveKind::kAllGather:
      moves.out.assign(n, whole_input);
      moves.in = collective.blocks;
      break;
    case CollectiveKind::kGather:
      moves.out[root] = whole_input;
      if (is_root) moves.in = collective.blocks;
      break;
    case CollectiveKind::kScatter:
      if (is_root) moves.out = collective.blocks;
      moves.in[root] = whole_output;
      break;
    default:
      moves.out = collective.send_blocks;
      moves.in = collective.blocks;
  }
  return moves;
}

// Small blocks into the greetings.
void enclose(MessageState& state, const Collective& collective, const Moves& moves) {
  const int rank = state.scope.rank;
  const bool same_for_all = collective.signature.kind == CollectiveKind::kAllGather;
  if (same_for_all) state.greetings.give_all_the_same();
  state.for_each_peer([&](int peer) {
    const auto out = bytes_of(collective.input, moves.out[static_cast<std::size_t>(peer)]);
    if (!state.is_small(out.size())) return;
    state.count_sent(peer, out.size());
    std::size_t size = 0;
    if (!same_for_all || peer == (rank + 1) % state.scope.size()) {
      state.enclose(same_for_all ? rank : peer, size, out);
    }
  });
}

void tell_counts(MessageState& state, const Moves& moves) {
  state.for_each_peer([&](int peer) {
    Greeting& greeting = state.greetings.to(peer);
    greeting.sends = moves.out[static_cast<std::size_t>(peer)].count;
    greeting.expects = moves.in[static_cast<std::size_t>(peer)].count;
  });
}

void compare_counts(const MessageState& state, const Signature& signature, const Moves& moves) {
  const int rank = state.scope.rank;
  for (int peer = 0; peer < state.scope.size(); ++peer) {
    const std::int64_t sent = moves.out[static_cast<std::size_t>(peer)].count;
    const std::int64_t expected = moves.in[static_cast<std::size_t>(peer)].count;
    const Greeting& theirs = state.greetings.from(peer);
    const std::int64_t peer_expects = peer == rank ? expected : theirs.expects;
    const std::int64_t peer_sends = peer == rank ? sent : theirs.sends;
    if (sent != peer_expects) {
      pair_mismatch_error(state.scope, signature, rank, peer, sent, peer_expects);
    }
    if (peer_sends != expected) {
      pair_mismatch_error(state.scope, signature, peer, rank, peer_sends, expected);
    }
  }
}

}  // namespace

void move_blocks(MessageState& state, const Collective& collective, const Deadline& deadline) {
  const Signature& signature = collective.signature;
  const Moves moves = moves_of(state.scope, collective);
  const bool has_counts = signature.kind == CollectiveKind::kAllToAll;
  enclose(state, collective, moves);
  if (has_counts) tell_counts(state, moves);
  state.greetings.meet(collective.identity(), deadline);
  if (has_counts) compare_counts(state, collective.identity(), moves);

  auto* output = static_cast<std::byte*>(collective.output.data);
  const std::size_t element = dtype_bytes(collective.output.dtype);
  const auto place = [&](int peer) {
    const Block& in = moves.in[static_cast<std::size_t>(peer)];
    return std::span(output + static_cast<std::size_t>(in.offset) * element,
                     static_cast<std::size_t>(in.count) * element);
  };
  const std::unique_ptr<Flight> flight = state.payload->make_flight();
  state.for_each_peer([&](int peer) {
    const auto in = place(peer);
    if (!state.is_small(in.size())) flight->receive(peer, kLane, in.data(), in.size());
  });
  state.for_each_peer([&](int peer) {
    const auto out = bytes_of(collective.input, moves.out[static_cast<std::size_t>(peer)]);
    if (!state.is_small(out.size())) state.send(*flight, peer, kLane, out);
  });
  state.for_each_peer([&](int peer) {
    const auto in = place(peer);
    if (state.is_small(in.size())) {
      state.memory->copy(in.data(), state.greetings.from(peer).data, in.size());
    }
  });
  const auto own = place(state.scope.rank);
  const auto own_out =
      bytes_of(collective.input, moves.out[static_cast<std::size_t>(state.scope.rank)]);
  state.memory->copy(own.data(), own_out.data(), own.size());
  flight->wait(OperationName(collective.identity()), deadline);
}

}  // namespace trireme
