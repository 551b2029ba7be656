// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/shm/shm_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "trireme/base/error.h"
#include "trireme/comm/shm/shm_copy.h"
#include "trireme/comm/shm/waiter_list.h"

namespace trireme {
namespace {

constexpr std::size_t kPageBytes = 4096;

// All words stand before all rings: words are reserved by the maker, a ring by its sender.
std::size_t words_bytes(int ranks) {
  const std::size_t bytes = static_cast<std::size_t>(ranks) * sizeof(ShmRing::Words);
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}
std::size_t ring_offset(int ranks, int sender) {
  return words_bytes(ranks) + static_cast<std::size_t>(sender) * ShmRing::kBytes;
}
std::size_t inbox_bytes(int ranks) { return ring_offset(ranks, ranks); }

}  // namespace

struct ShmMessages::Outbox {
  std::mutex opening;
  // Guarded by opening; once ready, memory and the ring's words stay.
  SharedMemory memory;
  std::atomic<bool> ready = false;

  std::mutex mutex;
  // Guarded by mutex.
  ShmRing ring;
  WaiterList waiters;  // for room
};

struct ShmMessages::Inbox {
  using Key = std::pair<int, std::uint64_t>;  // tag, sequence
  // A receive that was called.
  struct Posted {
    Buffer data;
    WaiterList::Waiter waiter;
    std::size_t arrived = 0;  // bytes
    bool done = false;
    std::optional<ConstBuffer> other;  // what the sender says it is, when that differs
  };
  // A message, or its beginning, that nobody has called a receive for.
  struct Stored {
    std::vector<std::byte> bytes;
    ConstBuffer what;
    std::size_t arrived = 0;
  };

  std::mutex mutex;
  // Guarded by mutex.
  ShmRing ring;
  std::map<Key, Posted*> posted;
  std::map<Key, Stored> stored;
  WaiterList waiters;  // of posted, for records

  // mutex held.
  void post(const Key& key, Posted& receive);
  bool empty_ring();
  void take(const ShmChunk& chunk, const std::byte* bytes);
  static void compare(Posted& receive, const ConstBuffer& sent);
};

void ShmMessages::Inbox::compare(Posted& receive, const ConstBuffer& sent) {
  if (sent.count == receive.data.count && sent.dtype == receive.data.dtype) return;
  receive.other = sent;
  receive.done = true;
}

void ShmMessages::Inbox::post(const Key& key, Posted& receive) {
  const auto found = stored.find(key);
  if (found != stored.end()) {
    const Stored& message = found->second;
    compare(receive, message.what);
    if (!receive.done) {
      copy_bytes(receive.data.data, message.bytes.data(), message.arrived);
      receive.arrived = message.arrived;
      receive.done = receive.arrived == receive.data.bytes();
    }
    stored.erase(found);
  }
  if (receive.done) return;
  posted.emplace(key, &receive);
  waiters.join(receive.waiter);
}

// False when there was nothing.
bool ShmMessages::Inbox::empty_ring() {
  ShmChunk chunk;
  const std::byte* bytes = nullptr;
  bool any = false;
  for (; ring.front(chunk, bytes); any = true) {
    take(chunk, bytes);
    ring.pop();
  }
  return any;
}

void ShmMessages::Inbox::take(const ShmChunk& chunk, const std::byte* bytes) {
  const Key key{chunk.tag, chunk.sequence};
  const ConstBuffer what(nullptr, chunk.count, chunk.dtype);
  const auto found = posted.find(key);
  if (found == posted.end()) {
    const auto [place, is_new] = stored.try_emplace(key);
    Stored& message = place->second;
    if (is_new) {
      message.bytes.resize(what.bytes());
      message.what = what;
    }
    copy_bytes(message.bytes.data() + chunk.offset, bytes, chunk.bytes);
    message.arrived += chunk.bytes;
    return;
  }
  Posted& receive = *found->second;
  compare(receive, what);
  if (!receive.done) {
    copy_bytes(static_cast<std::byte*>(receive.data.data) + chunk.offset, bytes, chunk.bytes);
    receive.arrived += chunk.bytes;
    receive.done = receive.arrived == what.bytes();
  }
  if (!receive.done) return;
  posted.erase(found);
  receive.waiter.notify();
}

// A message on its way into a ring.
class ShmMessages::Outgoing {
 public:
  Outgoing(Outbox& box, const MessageKey& key, const ConstBuffer& data)
      : box_(box),
        data_(static_cast<const std::byte*>(data.data)),
        bytes_(data.bytes()),
        word_(&box.ring.read()) {
    chunk_.tag = key.tag;
    chunk_.sequence = key.sequence;
    chunk_.count = data.count;
    chunk_.dtype = data.dtype;
  }
  ~Outgoing() {
    const std::lock_guard lock(box_.mutex);
    box_.waiters.leave(waiter_);
  }
  Outgoing(const Outgoing&) = delete;
  Outgoing& operator=(const Outgoing&) = delete;

  bool done() const { return done_; }
  // Where room is made known, and its value before the last advance().
  SharedWord& word() const { return *word_; }
  std::uint32_t seen() const { return seen_; }
  std::chrono::milliseconds slice() const { return slice_; }
  // Writes what there is room for. False when that was nothing.
  bool advance() {
    bool any = false;
    while (!done_ && write_chunk()) any = true;
    return any;
  }

 private:
  bool write_chunk() {
    const std::size_t bytes = std::min(ShmRing::kMostChunkBytes, bytes_ - chunk_.offset);
    chunk_.bytes = static_cast<std::uint32_t>(bytes);
    const std::lock_guard lock(box_.mutex);
    const std::uint32_t read = box_.ring.read().value();
    if (!box_.ring.write(chunk_, data_ + chunk_.offset)) {
      box_.waiters.join(waiter_);
      word_ = &waiter_.word(box_.ring.read());
      slice_ = waiter_.slice();
      seen_ = waiter_.watches() ? read : word_->value();
      return false;
    }
    chunk_.offset += bytes;
    done_ = chunk_.offset == bytes_;
    if (done_) box_.waiters.leave(waiter_);
    return true;
  }

  Outbox& box_;
  const std::byte* data_;
  const std::size_t bytes_;
  ShmChunk chunk_;             // the next one
  WaiterList::Waiter waiter_;  // guarded by the outbox's mutex; listed from the first wait on
  SharedWord* word_;
  std::chrono::milliseconds slice_ = kSleepSlice;
  std::uint32_t seen_ = 0;
  bool done_ = false;
};

// A receive that is posted while this exists.
class ShmMessages::Incoming {
 public:
  Incoming(Inbox& box, const MessageKey& key, const Buffer& data)
      : box_(box), key_(key.tag, key.sequence), word_(&box.ring.written()) {
    receive_.data = data;
    const std::lock_guard lock(box_.mutex);
    box_.post(key_, receive_);
    done_ = receive_.done;
  }
  ~Incoming() {
    const std::lock_guard lock(box_.mutex);
    if (!receive_.done) box_.posted.erase(key_);
    box_.waiters.leave(receive_.waiter);
  }
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;

  bool done() const { return done_; }
  // After done(): what the sender says the message is, when that differs.
  const std::optional<ConstBuffer>& other() const { return receive_.other; }
  // Where what comes is made known, and its value when advance() last found nothing.
  SharedWord& word() const { return *word_; }
  std::uint32_t seen() const { return seen_; }
  std::chrono::milliseconds slice() const { return slice_; }
  // Takes what has come from the peer, for whomever. False when that was nothing.
  bool advance() {
    const std::lock_guard lock(box_.mutex);
    const bool any = box_.empty_ring();
    word_ = &receive_.waiter.word(box_.ring.written());
    slice_ = receive_.waiter.slice();
    seen_ = receive_.waiter.watches() ? box_.ring.read().value() : word_->value();
    done_ = receive_.done;
    if (done_) box_.waiters.leave(receive_.waiter);
    return any;
  }

 private:
  Inbox& box_;
  const Inbox::Key key_;
  Inbox::Posted receive_;  // guarded by the inbox's mutex until done
  SharedWord* word_;
  std::chrono::milliseconds slice_ = kSleepSlice;
  std::uint32_t seen_ = 0;
  bool done_ = false;
};

ShmMessages::ShmMessages(const GroupScope& scope)
    : scope_(scope), spin_(every_rank_has_a_core(scope)) {
  const int n = scope.size();
  memory_ = SharedMemory::make(scope, {scope.id, scope.rank}, inbox_bytes(n));
  memory_.reserve(scope, 0, words_bytes(n));
  for (int rank = 0; rank < n; ++rank) {
    outboxes_.push_back(std::make_unique<Outbox>());
    inboxes_.push_back(std::make_unique<Inbox>());
    inboxes_.back()->ring = ring_in(memory_, rank);
  }
  scope.world->control->put(inbox_key(scope.rank), memory_.where());
  subscription_ = scope.world->latch.subscribe([this] { wake_sleepers(); });
}

ShmMessages::~ShmMessages() { scope_.world->latch.unsubscribe(subscription_); }

std::string ShmMessages::inbox_key(int rank) const {
  return fmt::format("shm-inbox/{:016x}/{}", scope_.id, rank);
}

ShmRing ShmMessages::ring_in(const SharedMemory& memory, int sender) const {
  auto* words = reinterpret_cast<ShmRing::Words*>(memory.data());
  return {words + sender, memory.data() + ring_offset(scope_.size(), sender)};
}

void ShmMessages::check(int peer, bool left, const OperationName& name,
                        const Deadline& deadline) const {
  scope_.world->latch.throw_if_failed();
  if (left) left_error(scope_, name, peer);
  if (deadline.expired()) timeout_error(scope_, name, {peer});
}

ShmMessages::Outbox& ShmMessages::open_outbox(const MessageKey& key, const OperationName& name,
                                              const Deadline& deadline) {
  Outbox& box = *outboxes_[static_cast<std::size_t>(key.peer)];
  if (box.ready.load(std::memory_order_acquire)) return box;
  // Every thread waits by itself: each has a deadline of its own.
  const std::string where = find_memory(scope_, inbox_key(key.peer), key.peer, name, deadline);
  const std::lock_guard lock(box.opening);
  if (box.ready.load(std::memory_order_relaxed)) return box;
  if (scope_.has_left(key.peer)) left_error(scope_, name, key.peer);
  const int n = scope_.size();
  box.memory = SharedMemory::open(scope_, {scope_.id, key.peer}, inbox_bytes(n), where, key.peer);
  box.memory.reserve(scope_, ring_offset(n, scope_.rank), ShmRing::kBytes);
  box.memory.close_descriptor();
  box.ring = ring_in(box.memory, scope_.rank);
  box.ready.store(true, std::memory_order_release);
  return box;
}

void ShmMessages::send(const MessageKey& key, const ConstBuffer& data, const Deadline& deadline) {
  const OperationName name(key, true, data.count, data.dtype);
  const WaitBoard::Posted posted(scope_, name, key.peer);
  Outgoing out(open_outbox(key, name, deadline), key, data);
  for (;;) {
    const bool left = scope_.has_left(key.peer);
    const bool any = out.advance();
    if (out.done()) return;
    if (any) continue;
    check(key.peer, left, name, deadline);
    if (spin_ && spin_for([&] { return out.word().value() != out.seen(); })) continue;
    SharedWord::Sleeper sleeper(out.word());
    if (sleeper.seen() == out.seen()) sleeper.sleep(deadline, out.slice());
  }
}

void ShmMessages::receive(const MessageKey& key, const Buffer& data, const Deadline& deadline) {
  const OperationName name(key, false, data.count, data.dtype);
  const WaitBoard::Posted posted(scope_, name, key.peer);
  Incoming in(*inboxes_[static_cast<std::size_t>(key.peer)], key, data);
  while (!in.done()) {
    const bool left = scope_.has_left(key.peer);
    const bool any = in.advance();
    if (in.done()) break;
    if (any) continue;
    check(key.peer, left, name, deadline);
    if (spin_ && spin_for([&] { return in.word().value() != in.seen(); })) continue;
    SharedWord::Sleeper sleeper(in.word());
    if (sleeper.seen() == in.seen()) sleeper.sleep(deadline, in.slice());
  }
  if (in.other()) {
    message_mismatch_error(scope_, key, false, data, in.other()->count, in.other()->dtype);
  }
}

void ShmMessages::exchange(const MessageKey& out_key, const ConstBuffer& out_data,
                           const MessageKey& in_key, const Buffer& in_data,
                           const Deadline& deadline) {
  const OperationName out_name(out_key, true, out_data.count, out_data.dtype);
  const OperationName in_name(in_key, false, in_data.count, in_data.dtype);
  const WaitBoard::Posted posted_out(scope_, out_name, out_key.peer);
  const WaitBoard::Posted posted_in(scope_, in_name, in_key.peer);
  Incoming in(*inboxes_[static_cast<std::size_t>(in_key.peer)], in_key, in_data);
  Outgoing out(open_outbox(out_key, out_name, deadline), out_key, out_data);
  const auto moved = [&] {
    return (!out.done() && out.word().value() != out.seen()) ||
           (!in.done() && in.word().value() != in.seen());
  };
  while (!in.done() || !out.done()) {
    const bool out_left = scope_.has_left(out_key.peer);
    const bool in_left = scope_.has_left(in_key.peer);
    const bool any_out = !out.done() && out.advance();
    const bool any_in = !in.done() && in.advance();
    if (any_out || any_in) continue;
    if (!out.done()) check(out_key.peer, out_left, out_name, deadline);
    if (!in.done()) check(in_key.peer, in_left, in_name, deadline);
    if (spin_ && spin_for(moved)) continue;
    SharedWord::Sleeper room(out.word());
    SharedWord::Sleeper record(in.word());
    if (moved()) continue;
    SharedWord::Sleeper::sleep_either(room, record, deadline);
  }
  if (in.other()) {
    message_mismatch_error(scope_, in_key, false, in_data, in.other()->count, in.other()->dtype);
  }
}

void ShmMessages::wake_sleepers() const {
  for (const auto& inbox : inboxes_) {
    const std::lock_guard lock(inbox->mutex);
    inbox->ring.written().wake_all();
    inbox->waiters.notify_all();
  }
  for (const auto& outbox : outboxes_) {
    if (!outbox->ready.load(std::memory_order_acquire)) continue;
    const std::lock_guard lock(outbox->mutex);
    outbox->ring.read().wake_all();
    outbox->waiters.notify_all();
  }
}

}  // namespace trireme
