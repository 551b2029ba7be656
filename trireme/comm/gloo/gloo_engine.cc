// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Collectives over the network, S bytes on n ranks, every rank talking to every other directly.
// docs/collectives.md has the reasoning.
//
// meet: every rank sends every other its signature, and with it its data when that is small. A
// barrier and a small operation are that and no more; all others begin with it, so nobody
// interprets data of another operation, and who is missing is known.
//
// all_reduce. Segments of n parts. scatter: rank r sends part j of its data to rank j, for every j,
// and receives part r of everybody. It reduces those in tree order. gather: it sends its reduced
// part to all and receives theirs in place. While a segment is gathered the next is being
// scattered. 2 (n - 1) / n x S bytes leave every rank, which is what a ring sends.
//
// all_gather: every rank sends its input to all, in one go. broadcast: the root sends everything to
// everybody, or, when that is more than a little, a part to each, which are then gathered.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "trireme/comm/engine.h"
#include "trireme/comm/gloo/gloo_flight.h"
#include "trireme/comm/reduction_tree.h"
#include "trireme/comm/gloo/sigpipe.h"

namespace trireme {
namespace {

using Purpose = GlooPort::Purpose;

// Data that travels with the signature.
constexpr std::size_t kSmallBytes = 4 << 10;
// In flight per stage: enough to cover the latency of a 10 Gbit/s link many times, small against a
// last-level cache.
constexpr std::size_t kSegmentBytes = 4 << 20;
// Up to here a broadcast is one message per rank; beyond, the root's link is the limit.
constexpr std::size_t kDirectBroadcastBytes = 64 << 10;

struct Greeting {
  Signature signature;
  std::byte data[kSmallBytes];
};

void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memmove(to, from, bytes);
}

// Elements [begin, begin + count).
struct Range {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

// Part `part` of `parts` of the range.
Range part_of(const Range& whole, int part, int parts) {
  const std::int64_t size = (whole.count + parts - 1) / parts;
  const std::int64_t begin = std::min(whole.count, part * size);
  return {whole.begin + begin, std::min(size, whole.count - begin)};
}

// A range of a buffer as bytes.
struct Bytes {
  std::byte* data;
  std::size_t size;
};
Bytes bytes_of(const Buffer& buffer, const Range& range) {
  const std::size_t element = dtype_bytes(buffer.dtype);
  return {static_cast<std::byte*>(buffer.data) + static_cast<std::size_t>(range.begin) * element,
          static_cast<std::size_t>(range.count) * element};
}

class GlooEngine final : public Engine {
 public:
  explicit GlooEngine(const GroupScope& scope)
      : scope_(scope),
        port_(scope),
        greeting_(std::make_unique<Greeting>()),
        inputs_(static_cast<std::size_t>(scope.size())) {
    for (auto& greetings : received_) greetings.resize(static_cast<std::size_t>(scope.size()));
  }

  std::string_view name() const override { return "gloo"; }
  std::int64_t bytes_sent() const override { return bytes_sent_.load(std::memory_order_relaxed); }
  std::int64_t bytes_sent_between_hosts() const override { return 0; }
  void send(const MessageKey&, const ConstBuffer&, const Deadline&) override { unfinished(); }
  void receive(const MessageKey&, const Buffer&, const Deadline&) override { unfinished(); }
  void exchange(const MessageKey&, const ConstBuffer&, const MessageKey&, const Buffer&,
                const Deadline&) override {
    unfinished();
  }
  static void unfinished() { throw InternalError("not there yet"); }
  void run(const Collective& collective, const Deadline& deadline) override;

 private:
  // Calls f(peer) for the others, nearest above this rank first, so that not all begin with rank 0.
  template <class F>
  void for_each_peer(F f) {
    for (int i = 1; i < scope_.size(); ++i) f((scope_.rank + i) % scope_.size());
  }
  void send(GlooFlight& flight, int peer, Purpose purpose, const Bytes& bytes) {
    flight.send(peer, purpose, bytes.data, bytes.size);
    count_sent(bytes.size);
  }
  void count_sent(std::size_t bytes) {
    bytes_sent_.fetch_add(static_cast<std::int64_t>(bytes), std::memory_order_relaxed);
  }
  const std::byte* greeting_data(int rank) const {
    return rank == scope_.rank ? greeting_->data
                               : received_[parity_ ^ 1][static_cast<std::size_t>(rank)].data;
  }

  void await_greetings(int parity);
  void meet(const void* data, std::size_t bytes, const Deadline& deadline);
  void all_reduce(const Buffer& data, const Deadline& deadline);
  void scatter(GlooFlight& flight, const Buffer& data, const Range& segment, std::byte* incoming);
  void reduce(const Buffer& data, const Range& own, const std::byte* incoming);
  void gather(GlooFlight& flight, const Buffer& data, const Range& whole, int owner = -1);
  void all_gather(const ConstBuffer& input, const Buffer& output, const Deadline& deadline);
  void broadcast(const Buffer& data, const Deadline& deadline);

  const GroupScope& scope_;
  GlooPort port_;
  Signature signature_;
  // Greetings of the next operation may come while this one runs: they are received alternately
  // into two sets, and each set is awaited one operation ahead.
  std::unique_ptr<Greeting> greeting_;
  std::vector<Greeting> received_[2];
  std::optional<GlooFlight> awaited_[2];
  int parity_ = 0;
  std::vector<const void*> inputs_;  // of a reduction, by rank
  std::vector<std::byte> incoming_[2];
  std::atomic<std::int64_t> bytes_sent_ = 0;
};

void GlooEngine::run(const Collective& collective, const Deadline& deadline) {
  const NoSigpipe no_sigpipe;
  signature_ = collective.signature;
  const Buffer& data = collective.output;
  const std::size_t own_bytes =
      signature_.kind == CollectiveKind::kAllGather ? collective.input.bytes() : data.bytes();
  const bool small = own_bytes <= kSmallBytes;
  const bool has_data =
      signature_.kind != CollectiveKind::kBroadcast || signature_.root == scope_.rank;
  const void* own =
      signature_.kind == CollectiveKind::kAllGather ? collective.input.data : data.data;
  meet(own, small && has_data ? own_bytes : 0, deadline);
  if (own_bytes == 0) return;
  switch (signature_.kind) {
    case CollectiveKind::kBarrier:
      return;
    case CollectiveKind::kAllReduce:
      if (!small) return all_reduce(data, deadline);
      for (int rank = 0; rank < scope_.size(); ++rank) {
        inputs_[static_cast<std::size_t>(rank)] = greeting_data(rank);
      }
      return reduce_tree(inputs_, data.data, data.count, data.dtype, signature_.op);
    case CollectiveKind::kAllGather:
      if (!small) return all_gather(collective.input, data, deadline);
      for (int rank = 0; rank < scope_.size(); ++rank) {
        copy_bytes(static_cast<std::byte*>(data.data) + own_bytes * static_cast<std::size_t>(rank),
                   greeting_data(rank), own_bytes);
      }
      return;
    case CollectiveKind::kBroadcast:
      if (!small) return broadcast(data, deadline);
      if (!has_data) copy_bytes(data.data, greeting_data(signature_.root), own_bytes);
      return;
    default:
      unfinished();
  }
}

void GlooEngine::await_greetings(int parity) {
  GlooFlight& flight = awaited_[parity].emplace(port_);
  for_each_peer([&](int peer) {
    flight.receive(peer, Purpose::kMeet, &received_[parity][static_cast<std::size_t>(peer)],
                   sizeof(Greeting));
  });
}

void GlooEngine::meet(const void* data, std::size_t bytes, const Deadline& deadline) {
  if (!awaited_[parity_]) await_greetings(parity_);
  await_greetings(parity_ ^ 1);
  greeting_->signature = signature_;
  copy_bytes(greeting_->data, data, bytes);
  GlooFlight sent(port_);
  for_each_peer([&](int peer) {
    sent.send(peer, Purpose::kMeet, greeting_.get(), offsetof(Greeting, data) + bytes);
    count_sent(bytes);
  });
  awaited_[parity_]->wait(signature_, deadline);
  sent.wait(signature_, deadline);
  for_each_peer([&](int peer) {
    const Signature& theirs = received_[parity_][static_cast<std::size_t>(peer)].signature;
    if (theirs != signature_) mismatch_error(scope_, signature_, peer, theirs);
  });
  parity_ ^= 1;
}

void GlooEngine::all_reduce(const Buffer& data, const Deadline& deadline) {
  const auto elements = static_cast<std::int64_t>(kSegmentBytes / dtype_bytes(data.dtype));
  const std::int64_t segments = (data.count + elements - 1) / elements;
  const auto segment = [&](std::int64_t s) {
    return Range{s * elements, std::min(elements, data.count - s * elements)};
  };
  const auto own_part = [&](std::int64_t s) {
    return part_of(segment(s), scope_.rank, scope_.size());
  };
  const std::size_t place = bytes_of(data, part_of(segment(0), 0, scope_.size())).size;
  for (auto& incoming : incoming_) incoming.resize(place * static_cast<std::size_t>(scope_.size()));
  GlooFlight scattering[2] = {GlooFlight(port_), GlooFlight(port_)};
  GlooFlight gathering[2] = {GlooFlight(port_), GlooFlight(port_)};
  for (std::int64_t s = 0; s < segments + 2; ++s) {
    if (s < segments) scatter(scattering[s & 1], data, segment(s), incoming_[s & 1].data());
    if (s >= 1 && s - 1 < segments) {
      const std::int64_t done = s - 1;
      scattering[done & 1].wait(signature_, deadline);
      reduce(data, own_part(done), incoming_[done & 1].data());
      gather(gathering[done & 1], data, segment(done));
    }
    if (s >= 2) gathering[s & 1].wait(signature_, deadline);
  }
}

// Receives part rank() of everybody into incoming, one place after the other.
void GlooEngine::scatter(GlooFlight& flight, const Buffer& data, const Range& segment,
                         std::byte* incoming) {
  const Bytes own = bytes_of(data, part_of(segment, scope_.rank, scope_.size()));
  for_each_peer([&](int peer) {
    flight.receive(peer, Purpose::kScatter, incoming + own.size * static_cast<std::size_t>(peer),
                   own.size);
  });
  for_each_peer([&](int peer) {
    send(flight, peer, Purpose::kScatter, bytes_of(data, part_of(segment, peer, scope_.size())));
  });
}

void GlooEngine::reduce(const Buffer& data, const Range& own, const std::byte* incoming) {
  const Bytes mine = bytes_of(data, own);
  for (int rank = 0; rank < scope_.size(); ++rank) {
    inputs_[static_cast<std::size_t>(rank)] =
        rank == scope_.rank ? mine.data : incoming + mine.size * static_cast<std::size_t>(rank);
  }
  reduce_tree(inputs_, mine.data, own.count, data.dtype, signature_.op);
}

// Every rank has its part of the range; then all have all. owner, if any, has all from the start.
void GlooEngine::gather(GlooFlight& flight, const Buffer& data, const Range& whole, int owner) {
  for_each_peer([&](int peer) {
    if (scope_.rank == owner) return;
    const Bytes theirs = bytes_of(data, part_of(whole, peer, scope_.size()));
    flight.receive(peer, Purpose::kGather, theirs.data, theirs.size);
  });
  for_each_peer([&](int peer) {
    if (peer == owner) return;
    send(flight, peer, Purpose::kGather,
         bytes_of(data, part_of(whole, scope_.rank, scope_.size())));
  });
}

void GlooEngine::all_gather(const ConstBuffer& input, const Buffer& output,
                            const Deadline& deadline) {
  const Range whole{0, output.count};
  const Bytes own = bytes_of(output, part_of(whole, scope_.rank, scope_.size()));
  if (own.data != input.data) copy_bytes(own.data, input.data, own.size);
  GlooFlight flight(port_);
  gather(flight, output, whole);
  flight.wait(signature_, deadline);
}

void GlooEngine::broadcast(const Buffer& data, const Deadline& deadline) {
  const Range whole{0, data.count};
  const bool root = scope_.rank == signature_.root;
  const bool direct = scope_.size() == 2 || data.bytes() <= kDirectBroadcastBytes;
  const auto portion = [&](int rank) {
    return bytes_of(data, direct ? whole : part_of(whole, rank, scope_.size()));
  };
  GlooFlight flight(port_);
  if (root) {
    for_each_peer([&](int peer) { send(flight, peer, Purpose::kScatter, portion(peer)); });
  } else {
    const Bytes mine = portion(scope_.rank);
    flight.receive(signature_.root, Purpose::kScatter, mine.data, mine.size);
  }
  flight.wait(signature_, deadline);
  if (direct) return;
  gather(flight, data, whole, signature_.root);
  flight.wait(signature_, deadline);
}

}  // namespace

std::unique_ptr<Engine> make_gloo_engine(const GroupScope& scope) {
  return std::make_unique<GlooEngine>(scope);
}

}  // namespace trireme
