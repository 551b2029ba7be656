// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/mpi/mpi_mesh.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/mpi/mpi_process.h"
#include "trireme/comm/mpi/mpi_support.h"

namespace trireme {
namespace {

// Data up to this size is copied twice instead of being announced: more than a greeting, less than
// what MPI libraries send without asking the receiver.
constexpr std::size_t kLetterBytes = 8 << 10;
// Letters that may come between two looks; more of them wait inside MPI.
constexpr int kLetters = 32;
// MPI's lock is held while a chunk is copied, and waiting threads look for one: short against what
// they may be late. Some are under way at a time, so that the line is never idle.
constexpr std::size_t kChunkBytes = 1 << 20;
constexpr std::size_t kChunksUnderWay = 8;

constexpr int kLetterTag = 0;
constexpr int kNoTag = -1;

// For MPI to end what was cancelled, and what is nearly there.
constexpr std::chrono::milliseconds kCancelTime{100};
constexpr std::chrono::milliseconds kCancelPause{1};
// Between looks at what has still to leave this rank.
constexpr std::chrono::milliseconds kLook{5};

std::unique_lock<std::mutex> lock_mpi() { return std::unique_lock(MpiProcess::instance().mutex()); }

}  // namespace

struct MpiMesh::LetterBox final : MpiChannel::Owner,
                                  std::enable_shared_from_this<MpiMesh::LetterBox> {
  explicit LetterBox(MpiMesh& owner) : mesh(owner) {}
  void complete(const MpiChannel::Completion& completion) override {
    if (completion.cancelled) return;
    // Nothing says which letter it was; whoever waits for it ends at its deadline.
    if (!completion.error.empty()) return log_error("MPI lost a letter: {}", completion.error);
    mesh.take_letter(completion.source, letter.data(), completion.bytes);
    if (!mesh.closing_) mesh.post(shared_from_this());
  }

  MpiMesh& mesh;
  std::array<std::byte, sizeof(Envelope) + kLetterBytes> letter;
};

void MpiMessage::complete(const MpiChannel::Completion& completion) {
  mesh_->complete(*this, completion);
}

MpiMesh::MpiMesh(int rank, int world_size, ControlPlane& control, const FailureLatch& latch,
                 const Deadline& deadline)
    : rank_(rank),
      control_(control),
      latch_(latch),
      peers_(static_cast<std::size_t>(world_size)),
      rank_of_(peers_.size(), -1) {
  MpiProcess& process = MpiProcess::instance();
  process.start();
  process.world_began();
  require_mpi(world_size);
  exchange_ranks(deadline);
  channel_ = std::make_unique<MpiChannel>(latch, deadline);
  const auto lock = lock_mpi();
  for (int i = 0; i < kLetters; ++i) {
    boxes_.push_back(std::make_shared<LetterBox>(*this));
    post(boxes_.back());
  }
}

void MpiMesh::exchange_ranks(const Deadline& deadline) {
  const auto key = [](int rank) { return fmt::format("mpi/{}", rank); };
  control_.put(key(rank_), std::to_string(MpiProcess::instance().rank()));
  for (int rank = 0; rank < static_cast<int>(peers_.size()); ++rank) {
    Peer& peer = peers_[static_cast<std::size_t>(rank)];
    peer.mpi_rank = std::stoi(
        control_.get(key(rank), deadline, fmt::format("rank {} to say its rank in MPI", rank)));
    int& owner = rank_of_.at(static_cast<std::size_t>(peer.mpi_rank));
    if (owner >= 0) {
      throw_error<ConfigError>(
          "ranks {} and {} are both rank {} of MPI: the mpi engine needs all ranks to be started "
          "by one mpirun, each as a process of its own",
          owner, rank, peer.mpi_rank);
    }
    owner = rank;
  }
}

MpiMesh::~MpiMesh() { end(); }

// Once: takes the receives for letters back.
void MpiMesh::end() {
  if (std::exchange(ended_, true)) return;
  bool clean = false;
  if (channel_ != nullptr) {
    const auto lock = lock_mpi();
    const bool usable = MpiProcess::instance().usable();
    closing_ = true;
    const Deadline deadline = Deadline::after(kCancelTime);
    for (const auto& box : boxes_) {
      if (usable) channel_->cancel(*box);
    }
    while (usable && channel_->under_way() > 0 && !deadline.expired() && try_to_look()) {
    }
    clean = usable && channel_->under_way() == 0 && !latch_.failed() && control_.has_left(rank_);
  }
  MpiProcess::instance().world_ended(clean);
}

void MpiMesh::look() {
  if (!channel_->poll()) return;
  ++count_;
  changed_.notify_all();
}

bool MpiMesh::try_to_look() {
  try {
    look();
    return true;
  } catch (const CommError& error) {
    log_error("{}", error.what());
    return false;
  }
}

std::shared_ptr<MpiMessage> MpiMesh::send(int to, std::uint64_t group, const Lane& lane,
                                          const void* data, std::size_t bytes) {
  auto message = std::make_shared<MpiMessage>();
  message->mesh_ = this;
  message->sends_ = true;
  message->peer_ = to;
  message->data_ = static_cast<std::byte*>(const_cast<void*>(data));  // only read
  message->bytes_ = bytes;
  const bool in_letter = bytes <= kLetterBytes;
  message->letter_.resize(sizeof(Envelope) + (in_letter ? bytes : 0));
  const auto lock = lock_mpi();
  Peer& peer = peers_[static_cast<std::size_t>(to)];
  message->tag_ = in_letter ? kNoTag : payload_tag(peer);
  const Envelope envelope{group,    lane.sequence, peer.next_out++, bytes,
                          lane.tag, message->tag_, lane.purpose,    {}};
  std::memcpy(message->letter_.data(), &envelope, sizeof(envelope));
  if (in_letter) {
    std::memcpy(message->letter_.data() + sizeof(envelope), data, bytes);
    message->started_ = bytes;
  }
  ++message->under_way_;
  channel_->send(message, peer.mpi_rank, kLetterTag, message->letter_.data(),
                 message->letter_.size(), false);
  move_on(*message);
  return message;
}

std::shared_ptr<MpiMessage> MpiMesh::receive(int from, std::uint64_t group, const Lane& lane,
                                             void* data, std::size_t bytes) {
  auto message = std::make_shared<MpiMessage>();
  message->mesh_ = this;
  message->peer_ = from;
  message->data_ = static_cast<std::byte*>(data);
  message->bytes_ = bytes;
  const auto lock = lock_mpi();
  const Key key{from, group, lane.purpose, lane.tag, lane.sequence};
  const auto arrived = arrived_.find(key);
  if (arrived == arrived_.end()) {
    awaited_[key].push_back(message);
    return message;
  }
  const Letter letter = std::move(arrived->second.front());
  arrived->second.pop_front();
  if (arrived->second.empty()) arrived_.erase(arrived);
  accept(*message, letter.envelope, letter.data.data());
  return message;
}

void MpiMesh::post(const std::shared_ptr<LetterBox>& box) {
  channel_->receive(box, MpiChannel::kAnySource, kLetterTag, box->letter.data(),
                    box->letter.size());
}

void MpiMesh::take_letter(int mpi_rank, const std::byte* letter, std::size_t bytes) {
  const int from = rank_of_[static_cast<std::size_t>(mpi_rank)];
  Peer& peer = peers_[static_cast<std::size_t>(from)];
  Envelope envelope;
  std::memcpy(&envelope, letter, sizeof(envelope));
  const std::byte* data = letter + sizeof(envelope);
  if (envelope.order != peer.next_in) {
    peer.early.emplace(envelope.order, Letter{envelope, {data, letter + bytes}});
    return;
  }
  deliver(from, envelope, data);
  ++peer.next_in;
  for (auto next = peer.early.begin(); next != peer.early.end() && next->first == peer.next_in;
       ++peer.next_in) {
    deliver(from, next->second.envelope, next->second.data.data());
    next = peer.early.erase(next);
  }
}

void MpiMesh::deliver(int from, const Envelope& envelope, const std::byte* data) {
  const Key key{from, envelope.group, envelope.purpose, envelope.lane_tag, envelope.sequence};
  const auto awaited = awaited_.find(key);
  if (awaited == awaited_.end()) {
    const std::size_t enclosed = envelope.payload_tag == kNoTag ? envelope.bytes : 0;
    arrived_[key].push_back({envelope, {data, data + enclosed}});
    return;
  }
  const std::shared_ptr<MpiMessage> message = std::move(awaited->second.front());
  awaited->second.pop_front();
  if (awaited->second.empty()) awaited_.erase(awaited);
  accept(*message, envelope, data);
}

void MpiMesh::accept(MpiMessage& message, const Envelope& envelope, const std::byte* data) {
  if (envelope.bytes > message.bytes_) {
    message.error_ =
        fmt::format("it has {} bytes, and {} are expected at most", envelope.bytes, message.bytes_);
    return finish(message);
  }
  message.bytes_ = envelope.bytes;
  message.tag_ = envelope.payload_tag;
  if (envelope.payload_tag == kNoTag) {
    std::memcpy(message.data_, data, envelope.bytes);
    return finish(message);
  }
  move_on(message);
}

int MpiMesh::payload_tag(Peer& peer) {
  if (!peer.free_tags.empty()) {
    const int tag = peer.free_tags.back();
    peer.free_tags.pop_back();
    return tag;
  }
  if (peer.next_tag > channel_->largest_tag()) {
    throw_error<CommError>("more than {} long messages to one rank are under way",
                           channel_->largest_tag());
  }
  return peer.next_tag++;
}

void MpiMesh::move_on(MpiMessage& message) {
  const int peer = peers_[static_cast<std::size_t>(message.peer_)].mpi_rank;
  while (message.started_ < message.bytes_ && message.under_way_ < kChunksUnderWay) {
    std::byte* chunk = message.data_ + message.started_;
    const std::size_t bytes = std::min(kChunkBytes, message.bytes_ - message.started_);
    const bool last = message.started_ + bytes == message.bytes_;
    if (message.sends_) {
      channel_->send(message.shared_from_this(), peer, message.tag_, chunk, bytes, last);
    } else {
      channel_->receive(message.shared_from_this(), peer, message.tag_, chunk, bytes);
    }
    message.started_ += bytes;
    ++message.under_way_;
  }
}

void MpiMesh::complete(MpiMessage& message, const MpiChannel::Completion& completion) {
  --message.under_way_;
  if (message.error_.empty()) message.error_ = completion.error;
  if (message.error_.empty()) {
    try {
      move_on(message);
    } catch (const CommError& error) {
      message.error_ = error.what();
    }
  }
  if (message.under_way_ > 0) return;
  if (message.sends_ && message.error_.empty() && message.tag_ != kNoTag) {
    peers_[static_cast<std::size_t>(message.peer_)].free_tags.push_back(message.tag_);
  }
  finish(message);
}

void MpiMesh::finish(MpiMessage& message) { message.done_.store(true, std::memory_order_release); }

// True when no letter has been matched with it.
bool MpiMesh::withdraw(const MpiMessage& message) {
  for (auto lane = awaited_.begin(); lane != awaited_.end(); ++lane) {
    auto& waiting = lane->second;
    const auto place = std::find_if(waiting.begin(), waiting.end(),
                                    [&](const auto& one) { return one.get() == &message; });
    if (place == waiting.end()) continue;
    waiting.erase(place);
    if (waiting.empty()) awaited_.erase(lane);
    return true;
  }
  return false;
}

void MpiMesh::forget(MpiMessage& message) {
  auto lock = lock_mpi();
  if (message.done() || withdraw(message)) return;
  // A letter of its own memory may go on.
  if (message.sends_ && message.tag_ == kNoTag) return;
  message.error_ = "it was given up";
  MpiProcess& process = MpiProcess::instance();
  if (process.usable()) channel_->cancel(message);
  const Deadline deadline = Deadline::after(kCancelTime);
  while (process.usable() && channel_->under_way(message) > 0) {
    if (deadline.expired() || !try_to_look()) return process.abandon();
    lock.unlock();
    std::this_thread::sleep_for(kCancelPause);
    lock.lock();
  }
}

std::uint64_t MpiMesh::poll() {
  const auto lock = lock_mpi();
  if (!MpiProcess::instance().usable()) {
    throw_error<CommError>(
        "MPI cannot be called any more: it was finalized, or given up after a failure in this "
        "process");
  }
  look();
  return count_;
}

void MpiMesh::rest(std::uint64_t count, std::chrono::microseconds time) {
  auto lock = lock_mpi();
  changed_.wait_for(lock, time, [&] { return count_ != count; });
}

void MpiMesh::leave(const Deadline& deadline) {
  while (
      !control_.wait_for_others_to_leave(Deadline::after(std::min(kLook, deadline.remaining())))) {
    const auto lock = lock_mpi();
    const bool over = deadline.expired() || latch_.failed();
    if (over || !MpiProcess::instance().usable() || !try_to_look()) break;
  }
  end();
}

std::shared_ptr<MpiMesh> make_mpi_mesh(int rank, int world_size, ControlPlane& control,
                                       const FailureLatch& latch, const Deadline& deadline) {
  return std::make_shared<MpiMesh>(rank, world_size, control, latch, deadline);
}

void leave_mpi(MpiMesh& mesh, const Deadline& deadline) { mesh.leave(deadline); }

}  // namespace trireme
