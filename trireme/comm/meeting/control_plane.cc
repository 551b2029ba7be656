// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/meeting/control_plane.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"

namespace trireme {
namespace {

// Waits for keys notice a failure within this time.
constexpr std::chrono::milliseconds kSlice{50};
// For what is still to be sent when the plane is taken down.
constexpr std::chrono::milliseconds kFarewellTime{500};

Deadline soonest(const Deadline& deadline, std::chrono::milliseconds time) {
  const Deadline slice = Deadline::after(time);
  return slice.time_point() < deadline.time_point() ? slice : deadline;
}

std::string answer_key(const std::string& question, int rank) {
  return fmt::format("answer/{}/{}", question, rank);
}

}  // namespace

ControlPlane::ControlPlane(int rank, Meeting meeting, FailureLatch& latch, const WaitBoard& waits)
    : rank_(rank),
      members_(std::move(meeting.members)),
      latch_(latch),
      waits_(waits),
      // Awake at first: frames may have come together with the end of the meeting.
      wakeup_(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)),
      left_(members_.size()),
      last_words_(std::move(meeting.last_words)),
      connections_(std::move(meeting.connections)) {
  if (!wakeup_) throw_error<CommError>("no file descriptor left for the control plane");
  watch_processes();
  thread_ = std::thread([this] { serve(); });
}

// Ranks that are threads of this process end with it.
void ControlPlane::watch_processes() {
  const Member& self = members_[static_cast<std::size_t>(rank_)];
  for (const Member& member : members_) {
    const bool here = member.host_id == self.host_id && member.process_space == self.process_space;
    if (!here || member.pid == self.pid) continue;
    std::string why;
    std::unique_ptr<PeerProcess> process = PeerProcess::watch(member, why);
    if (process != nullptr) {
      processes_.push_back(std::move(process));
    } else if (!why.empty()) {
      log_warn("rank {} cannot watch process {} of rank {} ({}): only rank 0 sees its end", rank_,
               member.pid, member.rank, why);
    }
  }
}

ControlPlane::~ControlPlane() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_thread();
  }
  thread_.join();
  // The last words: a failure that was announced, a goodbye.
  const Deadline farewell = Deadline::after(kFarewellTime);
  for (auto& [peer, connection] : connections_) {
    while (write_available(connection.fd, connection.outbox) == IoStatus::kOk &&
           !connection.outbox.empty() && !farewell.expired()) {
      pollfd ready{connection.fd.get(), POLLOUT, 0};
      poll(&ready, 1, static_cast<int>(farewell.remaining().count()));
    }
  }
}

void ControlPlane::put(const std::string& key, std::string value) {
  const std::lock_guard lock(mutex_);
  if (rank_ == 0) {
    keep_value(key, std::move(value));
  } else {
    send(0, FrameType::kPut, FieldWriter().text(key).text(value).bytes());
  }
  wake_thread();
}

std::string ControlPlane::get(const std::string& key, const Deadline& deadline,
                              const std::string& what) {
  return get(key, deadline, [&] {
    if (deadline.expired()) {
      throw_error<TimeoutError>("rank {} waited in vain for {}", rank_, what);
    }
  });
}

std::string ControlPlane::get(const std::string& key, const Deadline& deadline,
                              const std::function<void()>& look) {
  std::unique_lock lock(mutex_);
  if (rank_ != 0 && !values_.contains(key)) {
    send(0, FrameType::kGet, FieldWriter().text(key).bytes());
    wake_thread();
  }
  for (;;) {
    const auto found = values_.find(key);
    if (found != values_.end()) return found->second;
    latch_.throw_if_failed();
    changed_.wait_until(lock, soonest(deadline, kSlice).time_point());
    if (values_.contains(key)) continue;
    lock.unlock();  // it may ask other ranks
    look();
    lock.lock();
  }
}

std::string ControlPlane::ask() {
  const std::lock_guard lock(mutex_);
  std::string question = fmt::format("{}.{}", rank_, next_question_++);
  const std::string payload = FieldWriter().text(question).bytes();
  if (rank_ == 0) {
    answer_to(question);
    send_to_all_but(0, FrameType::kAsk, payload);
  } else {
    send(0, FrameType::kAsk, payload);
  }
  wake_thread();
  return question;
}

std::string ControlPlane::answer(const std::string& question, int rank, const Deadline& deadline) {
  return get(answer_key(question, rank), deadline, "an answer");
}

void ControlPlane::announce(const Failure& failure) {
  const std::lock_guard lock(mutex_);
  if (!latch(failure)) return;
  send_to_all_but(rank_, FrameType::kFailure, detail::encode_failure(failure));
  wake_thread();
}

bool ControlPlane::latch(const Failure& failure) {
  // First, so that who sees this process end after the latch fell finds them.
  if (!latch_.failed()) last_words_->failed(failure);
  const bool first = latch_.fail(failure);
  if (first && logs_failures_.load()) log_error("{}", failure.message);
  changed_.notify_all();
  return first;
}

void ControlPlane::say_goodbye() {
  const std::lock_guard lock(mutex_);
  if (left_[static_cast<std::size_t>(rank_)].exchange(true)) return;
  last_words_->left();
  send_to_all_but(rank_, FrameType::kGoodbye,
                  FieldWriter().u32(static_cast<std::uint32_t>(rank_)).bytes());
  wake_thread();
}

bool ControlPlane::wait_for_others_to_leave(const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  const auto all_left = [&] {
    return std::all_of(left_.begin(), left_.end(), [](const auto& left) { return left.load(); });
  };
  while (!all_left() && !latch_.failed() && !deadline.expired()) {
    changed_.wait_until(lock, soonest(deadline, kSlice).time_point());
  }
  return all_left();
}

void ControlPlane::serve() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    wait_for_events(lock);
    std::vector<int> ended;
    for (auto& [peer, connection] : connections_) {
      if (!serve_connection(peer, connection)) ended.push_back(peer);
    }
    for (const int peer : ended) handle_end(peer);
    // After the connections, because they say more.
    std::erase_if(processes_, [&](const std::unique_ptr<PeerProcess>& process) {
      if (!process->ended()) return false;
      handle_end_of(*process);
      return true;
    });
    // What the above gave others to say.
    for (auto& [peer, connection] : connections_) {
      write_available(connection.fd, connection.outbox);
    }
  }
}

void ControlPlane::wait_for_events(std::unique_lock<std::mutex>& lock) {
  std::vector<pollfd> ready{{wakeup_.get(), POLLIN, 0}};
  for (const auto& [peer, connection] : connections_) {
    const bool unsent = !connection.outbox.empty();
    ready.push_back({connection.fd.get(), static_cast<short>(POLLIN | (unsent ? POLLOUT : 0)), 0});
  }
  for (const auto& process : processes_) ready.push_back({process->fd(), POLLIN, 0});
  lock.unlock();
  poll(ready.data(), ready.size(), -1);
  std::uint64_t count = 0;
  // Only its coming matters.
  [[maybe_unused]] const ssize_t ignored = ::read(wakeup_.get(), &count, sizeof(count));
  lock.lock();
}

// False when it has ended.
bool ControlPlane::serve_connection(int peer, Connection& connection) {
  std::string bytes;
  bool open = read_available(connection.fd, bytes) == IoStatus::kOk;
  connection.decoder.feed(bytes);
  try {
    while (const std::optional<Frame> frame = connection.decoder.next()) handle(peer, *frame);
  } catch (const ProtocolError& error) {
    log_error("the control connection to rank {} carries garbage: {}", peer, error.what());
    open = false;
  }
  return write_available(connection.fd, connection.outbox) == IoStatus::kOk && open;
}

void ControlPlane::handle(int from, const Frame& frame) {
  FieldReader reader(frame.payload);
  switch (frame.type) {
    case FrameType::kPut:
    case FrameType::kValue: {
      std::string key = reader.text();
      keep_value(key, reader.text());
      break;
    }
    case FrameType::kGet: {
      std::string key = reader.text();
      const auto found = values_.find(key);
      if (found == values_.end()) {
        waiters_.push_back({from, std::move(key)});
      } else {
        send(from, FrameType::kValue, FieldWriter().text(key).text(found->second).bytes());
      }
      break;
    }
    case FrameType::kAsk: {
      const std::string question = reader.text();
      answer_to(question);
      if (rank_ == 0) send_to_all_but(0, FrameType::kAsk, frame.payload);
      break;
    }
    case FrameType::kFailure: {
      // Whoever latched an earlier one here has sent it to all.
      const bool first = latch(detail::decode_failure(frame.payload));
      if (first && rank_ == 0) send_to_all_but(from, FrameType::kFailure, frame.payload);
      return;
    }
    case FrameType::kGoodbye: {
      const std::uint32_t rank = reader.u32();
      if (rank >= left_.size()) throw_error<ProtocolError>("goodbye of rank {}", rank);
      mark_left(static_cast<int>(rank));
      if (rank_ == 0) send_to_all_but(from, FrameType::kGoodbye, frame.payload);
      break;
    }
    default:
      throw_error<ProtocolError>("frame of type {} out of turn", static_cast<int>(frame.type));
  }
  reader.finish();
}

void ControlPlane::handle_end(int from) {
  connections_.erase(from);
  if (has_left(from)) return;
  const Failure failure = lost(from);
  if (!latch(failure)) return;
  send_to_all_but(from, FrameType::kFailure, detail::encode_failure(failure));
}

void ControlPlane::handle_end_of(const PeerProcess& process) {
  const int rank = process.rank();
  if (process.has_left() && !has_left(rank)) {
    mark_left(rank);
    // Its goodbye may never have left it.
    if (rank_ == 0) {
      send_to_all_but(rank, FrameType::kGoodbye,
                      FieldWriter().u32(static_cast<std::uint32_t>(rank)).bytes());
    }
  }
  const std::optional<Failure> known = process.failure();
  if (!known && has_left(rank)) return;
  const Failure failure = known.value_or(lost(rank));
  if (!latch(failure)) return;
  send_to_all_but(rank, FrameType::kFailure, detail::encode_failure(failure));
}

void ControlPlane::send(int to, FrameType type, std::string_view payload) {
  const auto connection = connections_.find(to);
  if (connection != connections_.end()) connection->second.outbox += encode_frame(type, payload);
}

void ControlPlane::send_to_all_but(int rank, FrameType type, std::string_view payload) {
  const std::string frame = encode_frame(type, payload);
  for (auto& [peer, connection] : connections_) {
    if (peer != rank) connection.outbox += frame;
  }
}

void ControlPlane::answer_to(const std::string& question) {
  const std::string key = answer_key(question, rank_);
  std::string text = encode_waits(waits_.waits());
  if (rank_ == 0) {
    keep_value(key, std::move(text));
  } else {
    send(0, FrameType::kPut, FieldWriter().text(key).text(text).bytes());
  }
}

void ControlPlane::keep_value(const std::string& key, std::string value) {
  const std::string& kept = values_.emplace(key, std::move(value)).first->second;
  std::erase_if(waiters_, [&](const Waiter& waiter) {
    if (waiter.key != key) return false;
    send(waiter.rank, FrameType::kValue, FieldWriter().text(key).text(kept).bytes());
    return true;
  });
  changed_.notify_all();
}

void ControlPlane::mark_left(int rank) {
  left_[static_cast<std::size_t>(rank)].store(true);
  latch_.wake_all();
  changed_.notify_all();
}

void ControlPlane::wake_thread() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(wakeup_.get(), &one, sizeof(one));
}

Failure ControlPlane::lost(int rank) const {
  const Member& member = members_[static_cast<std::size_t>(rank)];
  return {
      Failure::Kind::kPeerLost, rank,
      fmt::format("rank {} on {} (process {}) is lost: it ended, or its connection broke, without "
                  "a goodbye; see its log",
                  rank, member.host_name, member.pid)};
}

}  // namespace trireme
