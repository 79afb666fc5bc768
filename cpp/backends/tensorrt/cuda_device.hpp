// CUDA runtime wrappers for the TensorRT backend: checked calls, RAII, and memory shared by host and device.
#pragma once

#include "mvde/mvde.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace mvde::internal::gpu {

// Converted to a status and a message at the backend's boundary.
struct Failure : std::runtime_error {
    Failure(mvde_status which, const std::string &message) : std::runtime_error(message), status(which) {}
    mvde_status status;
};

inline std::string describe(cudaError_t error) {
    return std::string(cudaGetErrorName(error)) + " (" + cudaGetErrorString(error) + ")";
}

inline void check(cudaError_t error, const char *doing) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // clears it, or the next launch would report it again
    throw Failure(MVDE_ERROR_BACKEND, std::string("CUDA answered ") + describe(error) + " to " + doing);
}

struct Device {
    int number = 0;
    bool is_integrated = false;  // shares the system's memory, as on a Jetson
    int major = 0, minor = 0;    // compute capability
    std::string name;
};

// Returns the calling thread's device. Throws Failure (MVDE_ERROR_NO_DEVICE) with the reason if there is none.
inline Device current_device() {
    int count = 0, driver = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
        cudaGetLastError();
        const bool has_driver = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
        const std::string found = error ? describe(error) : "the driver finds none";
        const std::string reason = has_driver ? found : "no NVIDIA driver is installed";
        throw Failure(MVDE_ERROR_NO_DEVICE,
                      "there is no CUDA device: " + reason + "; run it on the machine that has the GPU");
    }
    Device device;
    int is_integrated = 0;
    cudaDeviceProp properties{};
    check(cudaGetDevice(&device.number), "ask for the device");
    check(cudaGetDeviceProperties(&properties, device.number), "describe the device");
    check(cudaDeviceGetAttribute(&is_integrated, cudaDevAttrIntegrated, device.number), "describe the device");
    check(cudaDeviceGetAttribute(&device.major, cudaDevAttrComputeCapabilityMajor, device.number), "describe the device");
    check(cudaDeviceGetAttribute(&device.minor, cudaDevAttrComputeCapabilityMinor, device.number), "describe the device");
    device.is_integrated = is_integrated != 0;
    device.name = properties.name;
    return device;
}

// Makes a device current for the duration of a call: a session's calls may come from any thread.
class OnDevice {
public:
    explicit OnDevice(int number) {
        check(cudaGetDevice(&before_), "ask for the device");
        if (before_ != number) check(cudaSetDevice(number), "choose the device");
        else before_ = -1;
    }
    ~OnDevice() {
        if (before_ >= 0) cudaSetDevice(before_);
    }
    OnDevice(const OnDevice &) = delete;
    OnDevice &operator=(const OnDevice &) = delete;

private:
    int before_ = -1;
};

class Stream {
public:
    Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream"); }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;
    cudaStream_t get() const { return stream_; }
    void synchronize() const { check(cudaStreamSynchronize(stream_), "wait for a stream"); }

private:
    cudaStream_t stream_ = nullptr;
};

// A position in a stream; waiting for it sleeps rather than spins.
class Event {
public:
    Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming | cudaEventBlockingSync), "create an event"); }
    ~Event() { cudaEventDestroy(event_); }
    Event(const Event &) = delete;
    Event &operator=(const Event &) = delete;
    void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "record an event"); }
    void hold_back(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0), "wait for an event"); }
    void synchronize() const { check(cudaEventSynchronize(event_), "wait for a frame"); }
    bool is_done() const {
        const cudaError_t answer = cudaEventQuery(event_);
        if (answer == cudaErrorNotReady) return false;
        check(answer, "ask for a frame");
        return true;
    }

private:
    cudaEvent_t event_ = nullptr;
};

// Device memory.
template <class T>
class DeviceArray {
public:
    explicit DeviceArray(std::size_t count) {
        check(cudaMalloc(reinterpret_cast<void **>(&data_), count * sizeof(T)), "allocate device memory");
    }
    ~DeviceArray() { cudaFree(data_); }
    DeviceArray(const DeviceArray &) = delete;
    DeviceArray &operator=(const DeviceArray &) = delete;
    T *get() const { return data_; }

private:
    T *data_ = nullptr;
};

// An array used by host and device. With shared memory it is one array, and transfers do nothing; otherwise it is a
// page-locked and a device array, with transfers ordered by a stream.
template <class T>
class SharedArray {
public:
    SharedArray(const Device &device, std::size_t count) : bytes_(count * sizeof(T)), is_one_(device.is_integrated) {
        check(cudaHostAlloc(reinterpret_cast<void **>(&host_), bytes_, is_one_ ? cudaHostAllocMapped : cudaHostAllocDefault),
              "allocate page-locked memory");
        try {
            void **const address = reinterpret_cast<void **>(&device_);
            if (is_one_) check(cudaHostGetDevicePointer(address, host_, 0), "map memory into the device");
            else check(cudaMalloc(address, bytes_), "allocate device memory");
        } catch (...) {
            cudaFreeHost(host_);
            throw;
        }
    }
    ~SharedArray() {
        if (!is_one_) cudaFree(device_);
        cudaFreeHost(host_);
    }
    SharedArray(const SharedArray &) = delete;
    SharedArray &operator=(const SharedArray &) = delete;
    T *host() const { return host_; }
    T *device() const { return device_; }
    void upload(cudaStream_t stream) const {
        if (!is_one_) check(cudaMemcpyAsync(device_, host_, bytes_, cudaMemcpyHostToDevice, stream), "copy to the device");
    }
    void download(cudaStream_t stream) const {
        if (!is_one_) check(cudaMemcpyAsync(host_, device_, bytes_, cudaMemcpyDeviceToHost, stream), "copy from the device");
    }

private:
    T *host_ = nullptr, *device_ = nullptr;
    std::size_t bytes_;
    bool is_one_;
};

// A CUDA graph, captured once and launched as a whole; empty until then.
class Graph {
public:
    Graph() = default;
    ~Graph() { clear(); }
    Graph(const Graph &) = delete;
    Graph &operator=(const Graph &) = delete;
    explicit operator bool() const { return executable_ != nullptr; }
    void launch(cudaStream_t stream) const { check(cudaGraphLaunch(executable_, stream), "launch a graph"); }
    void clear() {
        if (executable_) cudaGraphExecDestroy(executable_);
        executable_ = nullptr;
    }

    // Captures the work that `enqueue` enqueues on the stream. Throws Failure; the stream remains usable.
    template <class Enqueue>
    void capture(cudaStream_t stream, Enqueue enqueue) {
        clear();
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin a capture");
        cudaGraph_t graph = nullptr;
        try {
            enqueue();
        } catch (...) {
            cudaStreamEndCapture(stream, &graph);
            if (graph) cudaGraphDestroy(graph);
            cudaGetLastError();
            throw;
        }
        check(cudaStreamEndCapture(stream, &graph), "end a capture");
        const cudaError_t made = cudaGraphInstantiateWithFlags(&executable_, graph, 0);
        cudaGraphDestroy(graph);
        check(made, "instantiate a graph");
    }

private:
    cudaGraphExec_t executable_ = nullptr;
};

}  // namespace mvde::internal::gpu
