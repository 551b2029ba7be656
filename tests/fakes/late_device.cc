// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/fakes/late_device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/SymIntArrayRef.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

namespace late_device {
namespace {

using c10::StreamId;

constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;
constexpr StreamId kDefaultStream = 0;  // of each device
// What memory holds that nobody has written: not-a-numbers.
constexpr int kFresh = 0xFF;

// Questions for an event until what is before it happens: more than who asks in passing has.
constexpr int kPatience = 8;

// On its way in a stream.
struct Copy {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  std::size_t bytes = 0;
  std::vector<std::byte> values{};  // of the host, when it was given to a stream
};

struct Stream {
  struct Work {
    Copy copy{};
    std::function<void()> run{};  // in place of a copy
  };
  std::deque<Work> work;
  std::vector<Copy> unseen;  // to the device, that have happened without the host knowing
  std::uint64_t given = 0, done = 0;
  std::uint64_t seen = 0;  // operations of the default stream that it comes after
};

struct Event {
  StreamId stream;
  std::uint64_t place;  // in the stream's work
  std::uint64_t seen;   // operations of the default stream
  int asked = 0;
};

struct Memory {
  std::size_t bytes;
  std::uint64_t last_used = 0;  // by which operation of the default stream
};

class Machine {
 public:
  static Machine& get() {
    static auto* const machine = new Machine;  // tensors of static objects end after main()
    return *machine;
  }

  void* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    void* data = std::malloc(bytes);
    std::memset(data, kFresh, bytes);
    memory_[static_cast<std::byte*>(data)] = {bytes};
    bytes_ += bytes;
    peak_bytes_ = std::max(peak_bytes_, bytes_);
    return data;
  }
  void release(void* data) {
    const std::lock_guard lock(mutex_);
    const auto found = memory_.find(static_cast<std::byte*>(data));
    if (under_way(*found)) note("memory that a copy uses is freed");
    bytes_ -= found->second.bytes;
    memory_.erase(found);
    std::free(data);
  }

  // The host has waited for the default stream, and so for all that this was made to wait for.
  void synchronize() {
    const std::lock_guard lock(mutex_);
    for (auto& [id, stream] : streams_) see(stream);
  }
  // An operation of the default stream begins that works with the tensor.
  void operate(const at::Tensor& tensor) {
    const std::lock_guard lock(mutex_);
    const auto place = find(tensor);
    if (place == memory_.end()) return;
    if (under_way(*place)) note("an operation on memory in which a copy is under way");
    place->second.last_used = ++operations_;
  }

  // A copy on another stream, with one side on the device.
  void give(StreamId stream, const at::Tensor& to, const at::Tensor& from) {
    const std::lock_guard lock(mutex_);
    Stream& s = streams_[stream];
    const auto place = find(to.is_cpu() ? from : to);
    if (place->second.last_used > s.seen) {
      note("a copy that is not ordered behind the last operation on its memory");
    }
    Copy copy{static_cast<std::byte*>(to.data_ptr()),
              static_cast<const std::byte*>(from.data_ptr()), from.nbytes()};
    if (from.is_cpu()) copy.values.assign(copy.from, copy.from + copy.bytes);
    s.work.push_back({std::move(copy)});
    ++s.given;
    ++late_copies_;
  }

  Event record(StreamId stream) {
    const std::lock_guard lock(mutex_);
    if (stream == kDefaultStream) return {stream, 0, operations_};
    return {stream, streams_[stream].given, streams_[stream].seen};
  }
  void block(const Event& event, StreamId stream) {
    const std::lock_guard lock(mutex_);
    if (stream == kDefaultStream) return run_up_to(event);
    Stream& s = streams_[stream];
    s.seen = std::max(s.seen, event.seen);
    s.work.push_back({{}, [this, event] { run_up_to(event); }});
    ++s.given;
  }
  bool query(Event& event) {
    const std::lock_guard lock(mutex_);
    if (event.stream == kDefaultStream) return true;
    Stream& stream = streams_[event.stream];
    if (stream.done < event.place && ++event.asked >= kPatience) run_up_to(event);
    if (stream.done < event.place) return false;
    see(stream);
    return true;
  }

  StreamId new_stream() {
    const std::lock_guard lock(mutex_);
    return ++last_stream_;
  }
  // Of this thread.
  static StreamId& current_stream(c10::Device device) {
    thread_local std::array<StreamId, kDevices> streams{};
    return streams[static_cast<std::size_t>(device.index())];
  }
  static c10::DeviceIndex& current_device() {
    thread_local c10::DeviceIndex index = 0;
    return index;
  }

  std::vector<std::string> take_violations() {
    const std::lock_guard lock(mutex_);
    return std::exchange(violations_, {});
  }
  std::int64_t late_copies() {
    const std::lock_guard lock(mutex_);
    return late_copies_;
  }
  std::int64_t bytes() {
    const std::lock_guard lock(mutex_);
    return static_cast<std::int64_t>(bytes_);
  }
  std::int64_t peak_bytes() {
    const std::lock_guard lock(mutex_);
    return static_cast<std::int64_t>(peak_bytes_);
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    peak_bytes_ = bytes_;
  }

 private:
  using Place = std::map<std::byte*, Memory>::iterator;

  void run_up_to(const Event& event) {
    if (event.stream == kDefaultStream) return;
    Stream& stream = streams_[event.stream];
    while (stream.done < event.place) {
      const Stream::Work work = std::move(stream.work.front());
      stream.work.pop_front();
      ++stream.done;
      if (work.run) {
        work.run();
        continue;
      }
      std::memcpy(work.copy.to, work.copy.from, work.copy.bytes);
      if (work.copy.values.empty()) {
        renew_values(work.copy);
      } else {
        stream.unseen.push_back(work.copy);
      }
    }
  }
  // A copy has written to the host what others, that wait for it, are to read there.
  void renew_values(const Copy& written) {
    for (auto& [id, stream] : streams_) {
      for (Stream::Work& work : stream.work) {
        Copy& copy = work.copy;
        const bool reads = !copy.values.empty() && copy.from < written.to + written.bytes &&
                           written.to < copy.from + copy.bytes;
        if (reads) copy.values.assign(copy.from, copy.from + copy.bytes);
      }
    }
  }
  // The host knows that the stream has come as far as it has: it may write again where that read.
  void see(Stream& stream) {
    for (const Copy& copy : stream.unseen) {
      if (std::memcmp(copy.from, copy.values.data(), copy.bytes) != 0) {
        note("host memory that has changed before the host knew of the end of a copy from it");
      }
    }
    stream.unseen.clear();
  }
  // The allocation that a tensor on the device lies in.
  Place find(const at::Tensor& tensor) {
    if (tensor.is_cpu() || tensor.numel() == 0) return memory_.end();
    const auto after = memory_.upper_bound(static_cast<std::byte*>(tensor.data_ptr()));
    return after == memory_.begin() ? memory_.end() : std::prev(after);
  }
  bool under_way(const std::pair<std::byte* const, Memory>& place) const {
    const auto lies_there = [&](const std::byte* data) {
      return data >= place.first && data < place.first + place.second.bytes;
    };
    for (const auto& [id, stream] : streams_) {
      for (const Stream::Work& work : stream.work) {
        if (work.copy.bytes > 0 && (lies_there(work.copy.to) || lies_there(work.copy.from))) {
          return true;
        }
      }
    }
    return false;
  }
  // Each kind once.
  void note(const std::string& violation) {
    const auto known = std::find(violations_.begin(), violations_.end(), violation);
    if (known == violations_.end()) violations_.push_back(violation);
  }

  std::recursive_mutex mutex_;
  // Guarded by mutex_.
  std::map<StreamId, Stream> streams_;
  std::map<std::byte*, Memory> memory_;
  std::uint64_t operations_ = 0;
  StreamId last_stream_ = kDefaultStream;
  std::size_t bytes_ = 0, peak_bytes_ = 0;
  std::int64_t late_copies_ = 0;
  std::vector<std::string> violations_;
};

c10::Stream stream_of(c10::Device device, StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, device, id);
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return device_of(std::exchange(Machine::current_device(), device.index()));
  }
  c10::Device getDevice() const override { return device_of(Machine::current_device()); }
  void setDevice(c10::Device device) const override { uncheckedSetDevice(device); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index()) Machine::current_device() = device.index();
  }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  c10::Stream getStream(c10::Device device) const noexcept override {
    return stream_of(device, Machine::current_stream(device));
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return stream_of(device, kDefaultStream);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return stream_of(device, Machine::get().new_stream());
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override {
    return stream_of(stream.device(),
                     std::exchange(Machine::current_stream(stream.device()), stream.id()));
  }
  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex,
              const c10::EventFlag) const override {
    delete static_cast<Event*>(*event);
    *event = new Event(Machine::get().record(stream.id()));
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event != nullptr) Machine::get().block(*static_cast<Event*>(event), stream.id());
  }
  bool queryEvent(void* event) const override {
    return event == nullptr || Machine::get().query(*static_cast<Event*>(event));
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event);
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(std::size_t bytes) const override {
    const c10::Device device = device_of(Machine::current_device());
    if (bytes == 0) return {nullptr, device};
    void* data = Machine::get().allocate(bytes);
    return {data, data, raw_deleter(), device};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return [](void* data) { Machine::get().release(data); };
  }
};

c10::Allocator* allocator() {
  static Allocator the_allocator;
  return &the_allocator;
}

const c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

at::Tensor empty(c10::SymIntArrayRef sizes, c10::optional<at::ScalarType> dtype,
                 c10::optional<at::Layout>, c10::optional<at::Device> device, c10::optional<bool>,
                 c10::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(c10::asIntArrayRefSlow(sizes), allocator(), kKeys,
                                   dtype.value_or(at::kFloat), format);
}

at::Tensor empty_strided(c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                         c10::optional<at::ScalarType> dtype, c10::optional<at::Layout>,
                         c10::optional<at::Device> device, c10::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(c10::asIntArrayRefSlow(sizes),
                                           c10::asIntArrayRefSlow(strides), allocator(), kKeys,
                                           dtype.value_or(at::kFloat));
}

// The same memory as a tensor of the CPU.
at::Tensor on_cpu(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(),
                       at::TensorOptions().dtype(tensor.dtype()));
}

// Whether this thread is inside of an operation: its copies are the operation's, which nobody waits
// for.
thread_local bool operating = false;

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const StreamId stream = Machine::current_stream(to.is_cpu() ? from.device() : to.device());
  const bool late = non_blocking && stream != kDefaultStream;
  if (late) {
    TORCH_CHECK(from.is_contiguous() && to.is_contiguous() && from.dtype() == to.dtype(),
                "late copies are those of memory");
    Machine::get().give(stream, to, from);
  } else {
    Machine::get().operate(from);
    Machine::get().operate(to);
    on_cpu(to).copy_(on_cpu(from));
    if (to.is_cpu() && !operating) Machine::get().synchronize();
  }
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  TORCH_CHECK(from.sizes() == to.sizes(), "results keep their size on this device");
  return copy_from(from, to, false);
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::size_t arguments = op.schema().arguments().size();
  for (std::size_t i = stack->size() - arguments; i < stack->size(); ++i) {
    const c10::IValue& value = (*stack)[i];
    if (value.isTensor() && value.toTensor().defined()) Machine::get().operate(value.toTensor());
    if (!value.isTensorList()) continue;
    for (const at::Tensor& tensor : value.toTensorVector()) Machine::get().operate(tensor);
  }
  const bool outer = std::exchange(operating, true);
  at::native::cpu_fallback(op, stack);
  operating = outer;
  if (op.schema().name() == "aten::_local_scalar_dense") Machine::get().synchronize();
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  library.impl("view", TORCH_FN(at::native::view));
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  library.impl("_copy_from", TORCH_FN(copy_from));
  library.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
}

}  // namespace

c10::Device device_of(int number) { return {kType, static_cast<c10::DeviceIndex>(number)}; }
std::vector<std::string> take_violations() { return Machine::get().take_violations(); }
std::int64_t late_copies() { return Machine::get().late_copies(); }
std::int64_t bytes() { return Machine::get().bytes(); }
std::int64_t peak_bytes() { return Machine::get().peak_bytes(); }
void reset_peak() { Machine::get().reset_peak(); }

}  // namespace late_device
