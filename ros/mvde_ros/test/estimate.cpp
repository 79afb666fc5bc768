// estimate ENGINE ENCODING HEIGHT WIDTH STEP FX,FY,CX,CY|- < image > depth, points of every second pixel with colours, and
// patch images, as float32: what the node publishes, for a comparison with Python.
#include <mvde_ros/estimator.hpp>

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

namespace {

void write(const std::vector<float> &values) { std::fwrite(values.data(), sizeof(float), values.size(), stdout); }

std::vector<double> numbers(const char *text) {
    std::vector<double> found;
    for (char *next = const_cast<char *>(text); *next;) {
        found.push_back(std::strtod(next, &next));
        if (*next == ',') ++next;
    }
    return found;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    std::vector<uint8_t> bytes;
    for (int byte = std::getchar(); byte != EOF; byte = std::getchar()) bytes.push_back(static_cast<uint8_t>(byte));
    mvde_ros::Settings settings;
    settings.engine_path = argv[1];
    if (std::string(argv[6]) != "-") settings.camera = numbers(argv[6]);
    mvde_ros::Image image;
    image.encoding = argv[2];
    image.height = std::atoi(argv[3]);
    image.width = std::atoi(argv[4]);
    image.step = static_cast<std::size_t>(std::atoi(argv[5]));
    image.data = bytes.data();
    image.num_bytes = bytes.size();
    try {
        mvde_ros::Estimator estimator(settings);
        estimator.open(image, estimator.given_camera({image.height, image.width}));
        std::vector<float> depth(estimator.num_depths()), stats(estimator.num_stats());
        std::vector<float> points(estimator.num_point_values(2, true));
        mvde::Outputs outputs;
        outputs.depth_m = depth;
        outputs.stats = stats;
        outputs.points = points;
        outputs.points_step = 2;
        for (int i = 0; i < 2; ++i) {  // the second time, the engine is open
            estimator.open(image, estimator.given_camera({image.height, image.width}));
            estimator.infer(image, outputs, true);
        }
        write(depth);
        write(points);
        for (const mvde_ros::PatchImage &column : estimator.patch_images(stats)) write(column.values);
    } catch (const mvde_ros::Refused &refused) {
        return std::fprintf(stderr, "%s\n", refused.what()), 1;
    }
    return 0;
}
