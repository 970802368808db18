from bz import Trainer
from bz.plugins import ConsoleOutPlugin
from my_plugins import LoggingPlugin, EmailNotificationPlugin

# Create trainer
trainer = Trainer()

# Add built-in plugins
trainer.add_plugin(ConsoleOutPlugin.init(training_spec))

# Add custom plugins
trainer.add_plugin(LoggingPlugin("my_training_log.json"))

email_config = {
    'smtp_server': 'smtp.gmail.com',
    'smtp_port': 587,
    'username': 'your_email@gmail.com',
    'password': 'your_app_password',
    'from_email': 'your_email@gmail.com',
    'to_email': 'recipient@example.com'
}
trainer.add_plugin(EmailNotificationPlugin(email_config))

# Train
trainer.train(model, optimizer, loss_fn, training_loader, ...)
