// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/ps/coordinator_link.h"
#include "trireme/ps/dense_codec.h"
#include "trireme/ps/peer_clients.h"
#include "trireme/ps/range_calls.h"
#include "trireme/ps/range_storage.h"
#include "trireme/ps/row_router.h"

namespace trireme::ps {
namespace {

// Lists of rows travel in the header of a call.
constexpr std::size_t kMostListBytes = kRpcHeaderLimit / 2;

std::exception_ptr error_of(LinkEnd end, const std::string& why, const std::string& name) {
  if (end == LinkEnd::kDropped) {
    return std::make_exception_ptr(
        PeerLostError(-1, fmt::format("{} was taken for gone and dropped from the job", name)));
  }
  if (end == LinkEnd::kFinished) {
    return std::make_exception_ptr(CommError("the job is over: its other workers are done"));
  }
  return std::make_exception_ptr(CommError(why));
}

CoordinatorLinkOptions link_options(const WorkerOptions& options, const std::string& name) {
  CoordinatorLinkOptions link;
  link.address = options.coordinator_address;
  link.port = options.coordinator_port;
  link.secret = options.secret;
  link.registration.index = options.rank;
  link.name = name;
  link.connect_timeout = options.join_timeout;
  return link;
}

}  // namespace

class Worker::Impl {
 public:
  Impl(const WorkerOptions& options, const JobLayout& layout)
      : options_(options),
        name_(fmt::format("worker {}", options.rank)),
        layout_(layout),
        ranges_(layout.dense_ranges()),
        buffers_(arena_),
        peers_(arena_, options.secret, name_),
        calls_(peers_, options.timeout),
        link_(link_options(options, name_)) {
    const JobLayout jobs = JobLayout::decode(link_.declare(layout.encode()));
    if (link_.begun()) layout_.first_step = jobs.first_step;
    const std::string difference = layout_difference(layout_, jobs);
    if (!difference.empty()) {
      throw_error<ConfigError>(
          "{} lays out its parameters in another way than the job does (ours, the job's): {}",
          name_, difference);
    }
    for (const SparseTableConfig& table : layout_.sparse.tables) widths_.push_back(table.width);
    weights_ = arena_.allocate(dense_bytes());
    gradients_ = arena_.allocate(dense_bytes());
    pushed_.resize(layout_.num_ranges());
    sums_.resize(layout_.num_ranges());
    extras_.resize(layout_.num_ranges());
    last_push_.resize(layout_.num_ranges());
    if (!options.codec.empty()) {
      for (std::size_t i = 0; i < ranges_.size(); ++i) encoders_.emplace_back(options.codec);
    }
    link_.start(
        [this](const Announcement& news) { calls_.enter_view(news.view); },
        [this](LinkEnd end, const std::string& why) { calls_.fail(error_of(end, why, name_)); });
    calls_.wait_for_view(Deadline::after(options.join_timeout), link_.id());
    if (link_.begun()) enter();
  }
  ~Impl() {
    // Servers may be at gradients that count.
    arena_.leave_to_readers();
    link_.close();
    peers_.close();
    calls_.close();
  }

  std::size_t dense_bytes() const {
    return static_cast<std::size_t>(layout_.dense.size) * sizeof(float);
  }
  static std::span<float> floats(const SharedBuffer& memory, std::int64_t count) {
    return {static_cast<float*>(memory.data()), static_cast<std::size_t>(count)};
  }
  std::span<float> weights() const { return floats(weights_, layout_.dense.size); }
  std::span<float> gradients() const { return floats(gradients_, layout_.dense.size); }
  std::span<float> part(std::span<float> all, std::size_t range) const {
    const FlatSegment& segment = ranges_.at(range);
    return all.subspan(static_cast<std::size_t>(segment.begin),
                       static_cast<std::size_t>(segment.end - segment.begin));
  }

  std::shared_ptr<RangeCall> make(Method method, std::size_t range) const {
    auto call = std::make_shared<RangeCall>();
    call->method = method;
    call->header.range = static_cast<std::uint32_t>(range);
    call->header.asker = {link_.id(), clock_};
    return call;
  }

  // Becomes a member of all ranges, and goes on from where the first of them is.
  void enter() {
    std::vector<std::int64_t> clocks(layout_.num_ranges());
    const Timestamp entered = calls_.begin(clocks.size());
    for (std::size_t i = 0; i < clocks.size(); ++i) {
      auto call = make(Method::kEnter, i);
      call->done = [&clocks, i](const RangeReply& reply, std::size_t) { clocks[i] = reply.clock; };
      calls_.send(entered, std::move(call));
    }
    calls_.wait(entered);
    const std::int64_t last = clocks.empty() ? 0 : *std::max_element(clocks.begin(), clocks.end());
    for (std::size_t i = 0; i < clocks.size(); ++i) {
      for (clock_ = clocks[i]; clock_ < last; ++clock_) push_nothing(i);
    }
    clock_ = last;
  }

  Timestamp init(std::span<const RangeFile> files) {
    const Timestamp timestamp = calls_.begin(layout_.num_ranges());
    for (std::size_t i = 0; i < layout_.num_ranges(); ++i) {
      auto call = make(Method::kInit, i);
      if (!files.empty()) {
        call->header.file = files[i].path;
        call->header.digest = files[i].digest;
      } else if (i < ranges_.size()) {
        call->payload = std::as_bytes(part(weights(), i));
      }
      calls_.send(timestamp, std::move(call));
    }
    return timestamp;
  }

  Timestamp init_states(std::span<const std::vector<std::byte>> states) {
    const Timestamp timestamp = calls_.begin(layout_.num_ranges());
    for (std::size_t i = 0; i < layout_.num_ranges(); ++i) {
      auto call = make(Method::kInit, i);
      if (i < states.size()) call->payload = states[i];
      calls_.send(timestamp, std::move(call));
    }
    return timestamp;
  }

  void fill(RangeRequest& header, const PushOptions& options) const {
    header.then_read = options.then_pull;
    header.learning_rate = options.learning_rate;
    header.gradient_scale = options.gradient_scale;
    header.weight = options.weight;
    header.skip = options.skip;
    header.empty = options.empty;
    header.assign = options.assign;
    header.extras = options.extras;
  }

  void keep_extras(RangeCall& call, std::size_t range) {
    call.done = [this, range](const RangeReply& reply, std::size_t) {
      extras_[range] = reply.extras;
      if (!layout_.two_phases) return;
      sums_[range] = {reply.weight, reply.extras, reply.block_sums, std::nullopt};
      // A push that is answered as done finds its step committed.
      const bool summed = reply.weight > 0 || !reply.block_sums.empty();
      if (!summed && reply.committed_scale >= 0)
        sums_[range].committed_scale = reply.committed_scale;
    };
  }

  void push(Timestamp timestamp, std::size_t range, const PushOptions& options) {
    check_push(range);
    auto call = make(Method::kPush, range);
    fill(call->header, options);
    call->priority = options.priority;
    const std::span<float> gradient = part(gradients(), range);
    if (options.empty) {
      call->payload = {};
    } else if (encoders_.empty() || options.assign) {
      call->payload = std::as_bytes(gradient);
    } else {
      DenseEncoder& encoder = encoders_[range];
      call->header.codec = options_.codec;
      call->memory = buffers_.get(encoder.encoded_bytes(gradient.size()));
      encoder.encode(gradient, call->memory.bytes());
      call->payload = call->memory.bytes();
    }
    if (options.then_pull) call->reply_space = std::as_writable_bytes(part(weights(), range));
    keep_extras(*call, range);
    follow_last_push(range, call);
    calls_.send(timestamp, std::move(call));
  }

  void follow_last_push(std::size_t range, const std::shared_ptr<RangeCall>& call) {
    if (layout_.two_phases) call->push = last_push_[range];
    last_push_[range] = call;
  }

  void check_push(std::size_t range) {
    if (pushed_.at(range)) {
      throw_error<ShapeError>("range {} was pushed in step {} already: end_step() comes first",
                              range, clock_);
    }
    pushed_[range] = true;
  }

  Timestamp push_nothing(std::size_t range) {
    auto call = make(Method::kPush, range);
    call->header.empty = true;
    follow_last_push(range, call);
    const Timestamp timestamp = calls_.begin(1);
    calls_.send(timestamp, std::move(call));
    return timestamp;
  }

  void pull(Timestamp timestamp, std::size_t range, int priority) {
    auto call = make(Method::kPull, range);
    call->priority = priority;
    call->reply_space = std::as_writable_bytes(part(weights(), range));
    calls_.send(timestamp, std::move(call));
  }

  void commit(Timestamp timestamp, std::size_t range, const PushOptions& options) {
    auto call = make(Method::kCommit, range);
    fill(call->header, options);
    call->priority = options.priority;
    call->push = last_push_.at(range);
    if (options.then_pull) call->reply_space = std::as_writable_bytes(part(weights(), range));
    keep_extras(*call, range);
    calls_.send(timestamp, std::move(call));
  }

  Timestamp rows(std::span<const PushRows> push, const PushOptions* options,
                 std::span<const PullRows> pull) {
    const auto slices = static_cast<std::uint32_t>(layout_.num_slices());
    const auto router = std::make_shared<const RowRouter>(push, pull, widths_, slices);
    std::vector<std::uint32_t> asked;
    for (std::uint32_t slice = 0; slice < slices; ++slice) {
      if (options != nullptr || router->pulls(slice)) asked.push_back(slice);
    }
    const Timestamp timestamp = calls_.begin(asked.size());
    const Bytes from =
        in_one_memory<const PushRows>(push, [](const PushRows& rows) { return rows.gradients; });
    const Bytes to =
        in_one_memory<const PullRows>(pull, [](const PullRows& rows) { return rows.rows; });
    const bool in_place = (push.empty() || !from.empty()) && (pull.empty() || !to.empty());
    for (const std::uint32_t slice : asked) {
      const std::size_t range = ranges_.size() + slice;
      auto call = make(options != nullptr ? Method::kPush : Method::kPull, range);
      if (options != nullptr) {
        check_push(range);
        fill(call->header, *options);
        call->header.then_read = router->pulls(slice);
        call->priority = options->priority;
        follow_last_push(range, call);
      }
      std::string lists;
      if (in_place) lists = router->lists(slice, from, to);
      if (lists.empty() || lists.size() > kMostListBytes) {
        pack(*call, router, slice);
      } else {
        call->header.lists = std::move(lists);
        call->payload = from;
        // The servers write what is wanted and nothing else.
        call->reply_space = {const_cast<std::byte*>(to.data()), to.size()};
        call->done = [this, range](const RangeReply& reply, std::size_t) {
          extras_[range] = reply.extras;
        };
        call->pack = [this, router, slice](RangeCall& packed) { pack(packed, router, slice); };
      }
      calls_.send(timestamp, std::move(call));
    }
    return timestamp;
  }

  // The memory of allocate() in which all the rows lie; empty: there is none.
  template <class Rows, class Where>
  Bytes in_one_memory(std::span<Rows> all, const Where& where) const {
    if (all.empty()) return {};
    for (const Bytes memory : memories_) {
      const auto lies_in = [&](const Rows& rows) {
        const auto* const begin = reinterpret_cast<const std::byte*>(where(rows));
        const std::size_t bytes =
            rows.ids.size() * static_cast<std::size_t>(widths_.at(rows.table)) * sizeof(float);
        return begin >= memory.data() && begin + bytes <= memory.data() + memory.size();
      };
      if (std::all_of(all.begin(), all.end(), lies_in)) return memory;
    }
    return {};
  }

  // Makes it a request whose rows are copied into memory of its own, and out of it.
  void pack(RangeCall& call, const std::shared_ptr<const RowRouter>& router, std::uint32_t slice) {
    const std::size_t range = ranges_.size() + slice;
    const std::size_t request_bytes = router->request_bytes(slice);
    // Apart by a cache line at least, and in one memory.
    const std::size_t reply_at = (request_bytes + 63) / 64 * 64;
    call.memory = buffers_.get(reply_at + router->reply_bytes(slice));
    const std::span<std::byte> memory = call.memory.bytes();
    router->write(slice, memory.first(request_bytes));
    call.header.lists.clear();
    call.payload = memory.first(request_bytes);
    call.reply_space = memory.subspan(reply_at);
    call.done = [this, router, slice, range, space = call.reply_space](const RangeReply& reply,
                                                                       std::size_t) {
      extras_[range] = reply.extras;
      router->scatter(slice, space);
    };
  }

  void end_step() {
    for (std::size_t i = 0; i < pushed_.size(); ++i) {
      if (!pushed_[i]) push_nothing(i);
      pushed_[i] = false;
    }
    ++clock_;
  }

  std::vector<std::string> save_ranges(const std::vector<std::string>& paths) {
    std::vector<std::string> digests(layout_.num_ranges());
    if (paths.size() != digests.size()) {
      throw_error<ShapeError>("{} files for {} ranges", paths.size(), digests.size());
    }
    const Timestamp timestamp = calls_.begin(digests.size());
    for (std::size_t i = 0; i < digests.size(); ++i) {
      auto call = make(Method::kSnapshot, i);
      call->header.file = paths[i];
      call->done = [&digests, i](const RangeReply& reply, std::size_t) { digests[i] = reply.text; };
      calls_.send(timestamp, std::move(call));
    }
    calls_.wait(timestamp);
    return digests;
  }

  std::vector<std::byte> dense_state(std::size_t range) {
    // Steps, weights and at most two moments of each element, or row and column means.
    const std::size_t most = 4 * part(weights(), range).size_bytes() + (std::size_t{1} << 20);
    std::size_t bytes = 0;
    auto call = make(Method::kSnapshot, range);
    call->memory = buffers_.get(most);
    call->reply_space = call->memory.bytes();
    call->done = [&bytes](const RangeReply&, std::size_t size) { bytes = size; };
    const Timestamp timestamp = calls_.begin(1);
    calls_.send(timestamp, call);
    calls_.wait(timestamp);
    const std::span<const std::byte> state = call->memory.bytes().first(bytes);
    return {state.begin(), state.end()};
  }

  ServerReport report() {
    ServerReport all;
    const View view = calls_.wait_for_view(Deadline::after(options_.timeout));
    for (const ServerView& server : view.servers) {
      const auto client = peers_.connect(server.id);
      if (client == nullptr) continue;
      ServerReport one;
      try {
        one =
            decode<ServerReport>(client
                                     ->call({.method = static_cast<std::uint32_t>(Method::kReport),
                                             .header = {},
                                             .payload = {},
                                             .reply_space = {}})
                                     .header);
      } catch (const CommError&) {
        continue;  // it is lost, and what it had seen
      }
      all.updates += one.updates;
      all.rows += one.rows;
      all.memory_bytes += one.memory_bytes;
      add(all.staleness, one.staleness);
      add(all.waited_for_us, one.waited_for_us);
      all.awaited.insert(all.awaited.end(), one.awaited.begin(), one.awaited.end());
    }
    return all;
  }
  template <class T>
  static void add(std::vector<T>& to, const std::vector<T>& from) {
    to.resize(std::max(to.size(), from.size()));
    for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
  }

  void leave() {
    if (std::exchange(left_, true)) return;
    calls_.wait_all();
    link_.leave();
  }

  const WorkerOptions options_;
  const std::string name_;
  JobLayout layout_;  // constant after construction
  const std::vector<FlatSegment> ranges_;
  std::vector<std::int64_t> widths_;
  RpcArena arena_;
  BufferPool buffers_;
  SharedBuffer weights_;
  SharedBuffer gradients_;
  std::vector<Bytes> memories_;         // that allocate() gave
  std::vector<DenseEncoder> encoders_;  // by dense range; none without a codec

  std::int64_t clock_ = 0;
  std::vector<bool> pushed_;                           // in this step, by range
  std::vector<SumReport> sums_;                        // by range
  std::vector<std::vector<double>> extras_;            // by range
  std::vector<std::shared_ptr<RangeCall>> last_push_;  // by range
  bool left_ = false;

  PeerClients peers_;
  RangeCalls calls_;
  CoordinatorLink link_;
};

Worker::Worker(const WorkerOptions& options, const JobLayout& layout)
    : impl_([&] {
        layout.validate();
        if (!options.codec.empty()) make_dense_codec(options.codec);
        return std::make_unique<Impl>(options, layout);
      }()) {}
Worker::~Worker() = default;

int Worker::rank() const { return impl_->options_.rank; }
const JobLayout& Worker::layout() const { return impl_->layout_; }
std::int64_t Worker::clock() const { return impl_->clock_; }
bool Worker::came_later() const { return impl_->link_.begun(); }
SharedBuffer Worker::allocate(std::size_t bytes) {
  SharedBuffer memory = impl_->arena_.allocate(bytes);
  impl_->memories_.push_back({static_cast<const std::byte*>(memory.data()), memory.bytes()});
  return memory;
}
std::span<float> Worker::weights() { return impl_->weights(); }
std::span<float> Worker::gradients() { return impl_->gradients(); }
std::size_t Worker::num_dense_ranges() const { return impl_->ranges_.size(); }
FlatSegment Worker::dense_range(std::size_t range) const { return impl_->ranges_.at(range); }

Timestamp Worker::init() { return impl_->init({}); }
Timestamp Worker::init_states(std::span<const std::vector<std::byte>> states) {
  const std::size_t all = impl_->layout_.num_ranges();
  if (states.size() != num_dense_ranges() && states.size() != all) {
    throw_error<ShapeError>("{} states for {} ranges, {} of them dense", states.size(), all,
                            num_dense_ranges());
  }
  return impl_->init_states(states);
}
Timestamp Worker::init(std::span<const RangeFile> files) {
  if (files.size() != impl_->layout_.num_ranges()) {
    throw_error<ShapeError>("{} files for {} ranges", files.size(), impl_->layout_.num_ranges());
  }
  return impl_->init(files);
}

Timestamp Worker::push(std::size_t range, const PushOptions& options) {
  const Timestamp timestamp = impl_->calls_.begin(1);
  impl_->push(timestamp, range, options);
  return timestamp;
}
Timestamp Worker::push(const PushOptions& options) {
  const Timestamp timestamp = impl_->calls_.begin(num_dense_ranges());
  for (std::size_t i = 0; i < num_dense_ranges(); ++i) impl_->push(timestamp, i, options);
  return timestamp;
}
Timestamp Worker::pull(std::size_t range, int priority) {
  const Timestamp timestamp = impl_->calls_.begin(1);
  impl_->pull(timestamp, range, priority);
  return timestamp;
}
Timestamp Worker::pull() {
  const Timestamp timestamp = impl_->calls_.begin(num_dense_ranges());
  for (std::size_t i = 0; i < num_dense_ranges(); ++i) impl_->pull(timestamp, i, 0);
  return timestamp;
}
const SumReport& Worker::sum(std::size_t range) const { return impl_->sums_.at(range); }
Timestamp Worker::commit(std::size_t range, const PushOptions& options) {
  const Timestamp timestamp = impl_->calls_.begin(1);
  impl_->commit(timestamp, range, options);
  return timestamp;
}
const std::vector<double>& Worker::last_extras(std::size_t range) const {
  return impl_->extras_.at(range);
}

Timestamp Worker::push_rows(std::span<const PushRows> push, const PushOptions& options,
                            std::span<const PullRows> pull) {
  return impl_->rows(push, &options, pull);
}
Timestamp Worker::pull_rows(std::span<const PullRows> pull) {
  return impl_->rows({}, nullptr, pull);
}

void Worker::wait(Timestamp timestamp) { impl_->calls_.wait(timestamp); }
void Worker::end_step() { impl_->end_step(); }
void Worker::wait_all() { impl_->calls_.wait_all(); }
std::vector<std::string> Worker::save_ranges(const std::vector<std::string>& paths) {
  return impl_->save_ranges(paths);
}
std::vector<std::byte> Worker::dense_state(std::size_t range) { return impl_->dense_state(range); }
ServerReport Worker::report() { return impl_->report(); }
void Worker::wait_for_others_to_leave() {
  impl_->calls_.wait_for_others_to_leave(Deadline::after(impl_->options_.timeout));
}
void Worker::leave() { impl_->leave(); }

}  // namespace trireme::ps
