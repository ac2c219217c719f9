from azureml.core.run import Run

run = Run.get_context()
run.log("accuracy", 0.97)
with open("plain.txt", "w") as file:
    file.write("kept")
run.upload_file("outputs/kept.txt", "plain.txt")
print(run.id, run.get_tags())
