"""The process of a row and its pipe: started, listened to, ended whatever it does."""
