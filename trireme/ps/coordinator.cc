// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/coordinator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/rpc/server.h"
#include "trireme/ps/job_layout.h"
#include "trireme/ps/messages.h"
#include "trireme/ps/protocol/membership.h"

namespace trireme::ps {
namespace {

using Clock = std::chrono::steady_clock;

// How often silence is looked for, and changes that came meanwhile become one view.
constexpr std::chrono::milliseconds kTick{20};
// A watcher without news is answered after so long, so that it asks again.
constexpr std::chrono::milliseconds kWatchTime{500};

}  // namespace

class Coordinator::Impl {
 public:
  explicit Impl(const CoordinatorOptions& options)
      : options_(options),
        membership_({.servers = options.servers, .workers = options.workers}),
        server_({.address = options.address,
                 .port = options.port,
                 .listen_fd = options.listen_fd,
                 .secret = options.secret,
                 .on_request = [this](RpcRequest request) { handle(std::move(request)); },
                 .on_closed = [this](std::uint64_t connection) { lost(connection); },
                 .host_id = {}}),
        ticker_([this] { tick(); }) {}
  ~Impl() { close(); }

  int port() const { return server_.port(); }

  bool wait_for(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    over_.wait_for(lock, time, [this] { return finished_ || !membership_.view().failure.empty(); });
    if (!membership_.view().failure.empty()) throw CommError(membership_.view().failure);
    if (!finished_) return false;
    // Watchers are answered at once, and servers then end: their connections close.
    over_.wait_for(lock, kWatchTime, [this] { return participants_.empty(); });
    return true;
  }

  View view() const {
    const std::lock_guard lock(mutex_);
    return membership_.view();
  }

  void close() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    over_.notify_all();
    const std::lock_guard lock(join_mutex_);
    if (ticker_.joinable()) ticker_.join();
    server_.close();
  }

 private:
  struct Participant {
    std::int64_t id = 0;
    bool is_server = false;
    int index = 0;
    std::string name;    // for the log
    std::string client;  // and whence it came
    std::uint64_t connection = 0;
    Clock::time_point heard;
    Clock::time_point asked;  // for views
    // Who else wants its place: connection, and since when.
    std::map<std::uint64_t, Clock::time_point> contests;
    Term known = 0;
    std::optional<RpcRequest> watch;  // waits for news
    Clock::time_point watch_since;
    bool knows_layout = false;
    bool knows_end = false;  // it was told that the job is done
  };

  void handle(RpcRequest request) {
    try {
      const std::lock_guard lock(mutex_);
      switch (static_cast<Method>(request.method())) {
        case Method::kRegister:
          return register_one(std::move(request));
        case Method::kDeclare:
          return declare(std::move(request));
        case Method::kWatch:
          return watch(std::move(request));
        case Method::kReady:
          return ready(std::move(request));
        case Method::kLeave:
          return leave(std::move(request));
        default:
          request.reply(kStatusRefused, "a coordinator holds no parameters");
      }
    } catch (const Error& error) {
      log_warn("coordinator: a request of {} is not understood: {}", request.client(),
               error.what());
    }
  }

  void register_one(RpcRequest request) {
    const auto message = decode<Registration>(request.header());
    const int places = message.is_server ? options_.servers : options_.workers;
    if (message.index < 0 || message.index >= places) {
      return request.reply(kStatusRefused, fmt::format("it is {} {}, and the job has {} of them",
                                                       message.is_server ? "server" : "worker",
                                                       message.index, places));
    }
    const auto other = std::find_if(participants_.begin(), participants_.end(), [&](auto& entry) {
      return entry.second.is_server == message.is_server && entry.second.index == message.index;
    });
    if (other != participants_.end()) return refuse_place(other->second, request);
    Participant participant;
    participant.id = next_id_++;
    participant.is_server = message.is_server;
    participant.index = message.index;
    participant.name = fmt::format("{} {}", message.is_server ? "server" : "worker", message.index);
    participant.client = request.client();
    participant.connection = request.connection();
    participant.heard = Clock::now();
    const Registered reply{participant.id, membership_.view().term > 0, options_.heartbeat.count()};
    if (message.is_server) {
      membership_.server_up({participant.id, message.index, message.address, message.port});
    } else {
      membership_.worker_up({participant.id, message.index});
      gone_workers_.erase(message.index);
    }
    if (reply.begun) log_info("{} has joined the job", participant.name);
    participants_[participant.id] = std::move(participant);
    request.reply(kStatusOk, encode(reply));
  }

  // Whose place it is may have ended unnoticed, and then says nothing more: it is known to live
  // when it has asked for views since this request came first.
  void refuse_place(Participant& holder, RpcRequest& request) {
    const auto [contest, is_new] = holder.contests.try_emplace(request.connection(), Clock::now());
    const std::string why =
        fmt::format("{} is in the job: no other may take its place while it lives", holder.client);
    if (holder.asked <= contest->second) return request.reply(kStatusTaken, why);
    log_warn("{} is refused: {}", request.client(), why);
    request.reply(kStatusRefused, why);
  }

  // The first layout counts; all get it, and compare.
  void declare(RpcRequest request) {
    const JobLayout layout = JobLayout::decode(request.header());
    if (layout_.empty()) {
      try {
        layout.validate();
      } catch (const ConfigError& error) {
        return request.reply(kStatusRefused, error.what());
      }
      layout_ = request.header();
      membership_.declare(layout.range_bytes_by_number(), layout.backups);
    }
    request.reply(kStatusOk, layout_);
  }

  void watch(RpcRequest request) {
    const auto message = decode<Watch>(request.header());
    const auto found = participants_.find(message.id);
    if (found == participants_.end()) return request.reply(kStatusUnknown);
    Participant& participant = found->second;
    participant.heard = participant.asked = Clock::now();
    participant.known = message.known;
    participant.watch = std::move(request);
    participant.watch_since = Clock::now();
    answer_if_news(participant);
  }

  void ready(RpcRequest request) {
    const auto message = decode<Ready>(request.header());
    if (!participants_.contains(message.id)) return request.reply(kStatusUnknown);
    membership_.ready(message.term, message.range);
    request.reply(kStatusOk);
  }

  void leave(RpcRequest request) {
    FieldReader in(request.header());
    const auto id = static_cast<std::int64_t>(in.u64());
    const auto found = participants_.find(id);
    if (found == participants_.end()) return request.reply(kStatusUnknown);
    if (!found->second.is_server) {
      membership_.worker_down(id);
      participants_.erase(found);
      finished_ = finished_ || no_worker();
    } else {
      membership_.server_down(id);
      participants_.erase(found);
    }
    request.reply(kStatusOk);
    over_.notify_all();
    answer_all();
  }

  void lost(std::uint64_t connection) {
    const std::lock_guard lock(mutex_);
    if (closing_) return;  // it is we who end the connections
    for (auto& [id, participant] : participants_) {
      if (participant.connection == connection) return drop(id, "its connection has ended");
    }
  }

  bool no_worker() const {
    return std::none_of(participants_.begin(), participants_.end(),
                        [](const auto& entry) { return !entry.second.is_server; });
  }

  // Where the last worker has not done its work, somebody must come and do it.
  void await_worker() {
    if (finished_ || membership_.view().term == 0 || !no_worker()) {
      alone_since_.reset();
      return;
    }
    const auto now = Clock::now();
    if (!alone_since_) alone_since_ = now;
    if (now - *alone_since_ < options_.return_timeout) return;
    std::vector<std::string> gone;
    for (const auto& [rank, text] : gone_workers_) gone.push_back(text);
    membership_.fail(fmt::format("no worker is left: {}; and none has come back within {} ms",
                                 fmt::join(gone, ", "), options_.return_timeout.count()));
    log_error("the job is lost: {}", membership_.view().failure);
  }

  void drop(std::int64_t id, const std::string& why) {
    const Participant& participant = participants_.at(id);
    const bool begun = membership_.view().term > 0;
    if (!finished_) {
      log_warn("{} is gone: {}{}", participant.name, why,
               begun ? "; the others go on" : "; the job has not begun");
    }
    if (participant.is_server) {
      membership_.server_down(id);
    } else {
      membership_.worker_down(id);
      gone_workers_[participant.index] = fmt::format("{} is gone ({})", participant.name, why);
    }
    participants_.erase(id);
    over_.notify_all();
  }

  void tick() {
    std::unique_lock lock(mutex_);
    while (!closing_) {
      const auto now = Clock::now();
      std::vector<std::int64_t> silent;
      for (const auto& [id, participant] : participants_) {
        if (now - participant.heard > options_.heartbeat && !participant.watch)
          silent.push_back(id);
      }
      for (const std::int64_t id : silent) {
        drop(id, fmt::format("it has said nothing for {} ms", options_.heartbeat.count()));
      }
      if (membership_.publish()) describe(membership_.view());
      if (membership_.view().failure.empty()) await_worker();
      answer_all();
      if (!membership_.view().failure.empty()) over_.notify_all();
      over_.wait_for(lock, kTick, [this] { return closing_; });
    }
  }

  void describe(const View& view) {
    if (!view.failure.empty()) return log_error("the job is lost: {}", view.failure);
    const auto waiting = std::count_if(
        view.ranges.begin(), view.ranges.end(),
        [](const auto& range) { return range.backup == kNobody || !range.backup_ready; });
    log_info("view {}: {} servers, {} workers, {} ranges{}", view.term, view.servers.size(),
             view.workers.size(), view.ranges.size(),
             waiting == 0 || view.servers.size() < 2
                 ? ""
                 : fmt::format(", {} of them on one server alone", waiting));
  }

  void answer_all() {
    for (auto& [id, participant] : participants_) answer_if_news(participant);
    // Who has been told that the job is over may go.
    if (std::erase_if(participants_, [](const auto& entry) { return entry.second.knows_end; }) >
        0) {
      over_.notify_all();
    }
  }

  void answer_if_news(Participant& participant) {
    if (!participant.watch) return;
    const View& view = membership_.view();
    const bool news = view.term > participant.known || finished_ || !view.failure.empty();
    if (!news && Clock::now() - participant.watch_since < kWatchTime) return;
    Announcement message{.view = {}, .finished = finished_, .layout = {}};
    message.view.term = participant.known;
    if (news) message.view = view;
    if (view.term > 0 && !std::exchange(participant.knows_layout, true)) message.layout = layout_;
    participant.heard = Clock::now();
    participant.knows_end = finished_;
    participant.watch->reply(kStatusOk, encode(message));
    participant.watch.reset();
  }

  const CoordinatorOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable over_;
  // Guarded by mutex_.
  Membership membership_;
  std::map<std::int64_t, Participant> participants_;
  std::int64_t next_id_ = 1;
  std::string layout_;
  bool finished_ = false;
  std::map<int, std::string> gone_workers_;  // by rank, without having done their work: and why
  std::optional<Clock::time_point> alone_since_;  // no worker is there
  bool closing_ = false;

  RpcServer server_;
  std::mutex join_mutex_;  // whoever closes it second waits for the first
  std::thread ticker_;
};

Coordinator::Coordinator(const CoordinatorOptions& options)
    : impl_([&] {
        if (options.servers < 1 || options.workers < 1) {
          throw_error<ConfigError>("a job of {} servers and {} workers: at least one of each",
                                   options.servers, options.workers);
        }
        return std::make_unique<Impl>(options);
      }()) {}
Coordinator::~Coordinator() = default;
int Coordinator::port() const { return impl_->port(); }
void Coordinator::wait() {
  while (!wait_for(std::chrono::hours(1))) {
  }
}
bool Coordinator::wait_for(std::chrono::milliseconds time) { return impl_->wait_for(time); }
View Coordinator::view() const { return impl_->view(); }
void Coordinator::close() { impl_->close(); }

}  // namespace trireme::ps
